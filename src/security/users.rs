//! The users file: names and what is kept of their passwords in TOML, kept by `sabir user`, replaced whole and never
//! half.
//!
//! ```toml
//! [users]
//! "alice" = { argon2id = "$argon2id$v=19$m=19456,t=2,p=1$…", scram_sha_256 = "SCRAM-SHA-256$15000:…$…:…" }
//! "bob" = "$argon2id$v=19$m=19456,t=2,p=1$…"
//! ```
//!
//! Bob's form is that of older files. It is read, and written again, for who has no verifier: he can log in by sending
//! his password only, until he gets a new one.
#![expect(
    clippy::disallowed_methods,
    reason = "`sabir user` replaces the users file as a whole, and surely; the log has no part in it"
)]

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use crate::password::{Cost, Stored};
use crate::scram::Verifier;

const HEAD: &str =
    "# The users of Sabir, kept by `sabir user`. A running broker reads this file again when it changes.\n";

/// Longest user name, in bytes.
const NAME_BYTES_MAX: usize = 255;

/// A name that a user may have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserName(Box<str>);

impl UserName {
    /// Reads a name.
    ///
    /// # Errors
    /// One sentence for a name that is empty, too long, holds control characters or outer blanks, or means something
    /// else in a rule (`*`, `anonymous`).
    pub fn parse(text: &str) -> Result<Self, String> {
        let problem = if text.is_empty() {
            "a user name cannot be empty"
        } else if text.len() > NAME_BYTES_MAX {
            "a user name is at most 255 bytes long"
        } else if text.chars().any(char::is_control) {
            "a user name cannot hold control characters"
        } else if text.trim() != text {
            "a user name cannot begin or end with a blank"
        } else if matches!(text, "*" | "anonymous") {
            "\"*\" and \"anonymous\" mean everybody and nobody in rules; choose another name"
        } else {
            return Ok(Self(text.into()));
        };
        Err(problem.to_owned())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What went wrong with a users file: one sentence that names the file.
#[derive(Debug)]
pub struct UsersError {
    path: PathBuf,
    problem: String,
}

impl UsersError {
    pub(crate) fn new(path: &Path, problem: impl Into<String>) -> Self {
        Self { path: path.to_owned(), problem: problem.into() }
    }
}

impl fmt::Display for UsersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.problem)
    }
}

impl std::error::Error for UsersError {}

/// What is kept of a password.
#[derive(Clone, Debug)]
struct User {
    password: Stored,
    verifier: Option<Verifier>,
}

/// Everybody who may log in.
#[derive(Clone, Debug, Default)]
pub struct Users(BTreeMap<UserName, User>);

impl Users {
    /// Reads the file. One that does not exist holds nobody.
    ///
    /// # Errors
    /// If the file cannot be read, or is not a users file; the sentence names the line.
    pub fn load(path: &Path) -> Result<Self, UsersError> {
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).map_err(|problem| UsersError::new(path, problem)),
            // A data directory that is a file is the store's to complain about: it names the directory.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(Self::default())
            }
            Err(error) => Err(UsersError::new(path, format!("cannot be read: {error}"))),
        }
    }

    /// Changes the file: reads it, lets `change` do its work, and puts the result in its place in one step, readable by
    /// its owner only. Two processes take turns.
    ///
    /// # Errors
    /// Those of [`Users::load`], what `change` refuses, and what the file system refuses.
    pub fn edit<T>(
        path: &Path,
        change: impl FnOnce(&mut Self) -> Result<T, String>,
    ) -> Result<T, UsersError> {
        let unwritable = |error: io::Error| UsersError::new(path, format!("cannot be written: {error}"));
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(parent).map_err(unwritable)?;
        let lock = private().truncate(false).open(sibling(path, ".lock")).map_err(unwritable)?;
        lock.lock().map_err(unwritable)?;
        let mut users = Self::load(path)?;
        let answer = change(&mut users).map_err(|problem| UsersError { path: path.to_owned(), problem })?;
        replace(path, parent, users.to_toml().as_bytes()).map_err(unwritable)?;
        Ok(answer)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let line = |offset: usize| text.get(..offset).unwrap_or(text).matches('\n').count() + 1;
        let document = DeTable::parse(text).map_err(|error| match error.span() {
            Some(span) => format!("line {}: {}", line(span.start), error.message()),
            None => error.message().to_owned(),
        })?;
        let mut users = BTreeMap::new();
        for (key, value) in document.get_ref() {
            let at = line(key.span().start);
            let (DeValue::Table(table), "users") = (value.get_ref(), key.get_ref().as_ref()) else {
                return Err(format!("line {at}: only a table [users] belongs here, not {}", key.get_ref()));
            };
            for (name, kept) in table {
                let at = line(name.span().start);
                let name =
                    UserName::parse(name.get_ref()).map_err(|problem| format!("line {at}: {problem}"))?;
                let user =
                    User::read(&name, kept.get_ref()).map_err(|problem| format!("line {at}: {problem}"))?;
                users.insert(name, user);
            }
        }
        Ok(Self(users))
    }

    fn to_toml(&self) -> String {
        let mut text = format!("{HEAD}\n[users]\n");
        for (name, user) in &self.0 {
            let escaped = name.as_str().replace('\\', "\\\\").replace('"', "\\\"");
            let hash = user.password.to_phc();
            let kept = match &user.verifier {
                None => format!("\"{hash}\""),
                Some(verifier) => {
                    format!("{{ argon2id = \"{hash}\", scram_sha_256 = \"{}\" }}", verifier.to_text())
                }
            };
            text.push_str(&format!("\"{escaped}\" = {kept}\n"));
        }
        text
    }

    /// Adds a user.
    ///
    /// # Errors
    /// If the name is taken, or the password is empty, not UTF-8, or holds control characters.
    pub fn add(&mut self, name: UserName, password: &[u8]) -> Result<(), String> {
        if self.0.contains_key(&name) {
            return Err(format!(
                "there is a user {name} already; change the password with `sabir user passwd`"
            ));
        }
        self.store(name, password, Cost::RECOMMENDED)
    }

    /// Changes a password.
    ///
    /// # Errors
    /// If there is no such user, or the password is empty, not UTF-8, or holds control characters.
    pub fn set_password(&mut self, name: UserName, password: &[u8]) -> Result<(), String> {
        if !self.0.contains_key(&name) {
            return Err(format!("there is no user {name}"));
        }
        self.store(name, password, Cost::RECOMMENDED)
    }

    pub(crate) fn store(&mut self, name: UserName, password: &[u8], cost: Cost) -> Result<(), String> {
        if password.is_empty() {
            return Err("a password cannot be empty".to_owned());
        }
        let verifier = Some(Verifier::new(password, cost.iterations())?);
        self.0.insert(name, User { password: Stored::new(password, cost)?, verifier });
        Ok(())
    }

    /// Removes a user.
    ///
    /// # Errors
    /// If there is no such user.
    pub fn remove(&mut self, name: &UserName) -> Result<(), String> {
        self.0.remove(name).map(drop).ok_or_else(|| format!("there is no user {name}"))
    }

    /// Their names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(UserName::as_str)
    }

    /// Whether there is nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn get(&self, login: &str) -> Option<&Stored> {
        self.user(login).map(|user| &user.password)
    }

    /// Names are compared byte for byte, here too.
    pub(crate) fn verifier(&self, login: &str) -> Option<&Verifier> {
        self.user(login)?.verifier.as_ref()
    }

    fn user(&self, login: &str) -> Option<&User> {
        self.0.get(&UserName::parse(login).ok()?)
    }
}

impl User {
    /// Reads what stands behind a name: a hash alone, or a table with a verifier as well.
    fn read(name: &UserName, kept: &DeValue<'_>) -> Result<Self, String> {
        let hash = |value: &DeValue<'_>| match value {
            DeValue::String(text) => {
                Stored::parse(text).map_err(|problem| format!("the password hash of {name} {problem}"))
            }
            _ => Err(format!("the password hash of {name} is not a string")),
        };
        let DeValue::Table(table) = kept else {
            return Ok(Self { password: hash(kept)?, verifier: None });
        };
        let (mut password, mut verifier) = (None, None);
        for (key, value) in table {
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("argon2id", value) => password = Some(hash(value)?),
                ("scram_sha_256", DeValue::String(text)) => {
                    let parsed = Verifier::parse(text)
                        .map_err(|problem| format!("the scram_sha_256 of {name} {problem}"))?;
                    verifier = Some(parsed);
                }
                ("scram_sha_256", _) => return Err(format!("the scram_sha_256 of {name} is not a string")),
                (other, _) => return Err(format!("{name} has {other}, which means nothing here")),
            }
        }
        let password = password.ok_or_else(|| format!("{name} has no argon2id"))?;
        Ok(Self { password, verifier })
    }
}

fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn replace(path: &Path, parent: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = sibling(path, ".new");
    // A draft left by a crash may have other permissions: begin afresh.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = private().create_new(true).open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn name(text: &str) -> UserName {
        UserName::parse(text).unwrap()
    }

    #[test]
    fn users_come_back_from_their_file_and_nobody_else_may_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data/users.toml");
        Users::edit(&path, |users| users.store(name("alice"), b"a", Cost::TEST)).unwrap();
        Users::edit(&path, |users| users.store(name("b\"ob\\.x é"), b"b", Cost::TEST)).unwrap();
        let users = Users::load(&path).unwrap();
        assert_eq!(users.names().collect::<Vec<_>>(), ["alice", "b\"ob\\.x é"]);
        assert!(users.get("alice").unwrap().matches(b"a"));
        assert!(users.get("b\"ob\\.x é").unwrap().matches(b"b"));
        assert!(users.get("carol").is_none());
        assert_eq!(Users::parse(&users.to_toml()).unwrap().verifier("alice"), users.verifier("alice"));
        assert_ne!(users.verifier("alice"), users.verifier("b\"ob\\.x é"));
        #[cfg(unix)]
        {
            let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&path).unwrap());
            assert_eq!(mode & 0o777, 0o600);
        }
        assert!(!path.with_file_name("users.toml.new").exists());
    }

    #[test]
    fn a_refused_change_leaves_the_file_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users.toml");
        Users::edit(&path, |users| users.store(name("alice"), b"a", Cost::TEST)).unwrap();
        let before = fs::read_to_string(&path).unwrap();
        for (change, sentence) in [
            (Users::edit(&path, |users| users.add(name("alice"), b"x")), "there is a user alice already"),
            (Users::edit(&path, |users| users.set_password(name("bob"), b"x")), "there is no user bob"),
            (Users::edit(&path, |users| users.remove(&name("bob"))), "there is no user bob"),
            (Users::edit(&path, |users| users.add(name("bob"), b"")), "a password cannot be empty"),
            (Users::edit(&path, |users| users.add(name("bob"), b"a\0b")), "cannot hold control characters"),
        ] {
            let problem = change.unwrap_err().to_string();
            assert!(problem.contains(sentence), "{problem}");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), before);
        Users::edit(&path, |users| users.remove(&name("alice"))).unwrap();
        assert!(Users::load(&path).unwrap().is_empty());
    }

    #[test]
    fn users_of_an_old_file_are_kept_as_they_are_until_they_get_a_new_password() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users.toml");
        let hash = Stored::new(b"a", Cost::TEST).unwrap().to_phc();
        let old = format!("[users]\n\"alice\" = \"{hash}\"\n");
        fs::write(&path, &old).unwrap();
        Users::edit(&path, |users| users.store(name("bob"), b"b", Cost::TEST)).unwrap();
        let users = Users::load(&path).unwrap();
        assert!(users.get("alice").unwrap().matches(b"a"));
        assert!(users.verifier("alice").is_none() && users.verifier("bob").is_some());
        assert!(fs::read_to_string(&path).unwrap().contains(&format!("\"alice\" = \"{hash}\"\n")));
        Users::edit(&path, |users| users.store(name("alice"), b"c", Cost::TEST)).unwrap();
        assert!(Users::load(&path).unwrap().verifier("alice").is_some());
    }

    #[test]
    fn a_missing_file_holds_nobody() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Users::load(&directory.path().join("none.toml")).unwrap().is_empty());
    }

    #[test]
    fn damaged_files_are_refused_by_line() {
        for (text, sentence) in [
            ("[users]\nalice = 5\n", "line 2: the password hash of alice is not a string"),
            (
                "[users]\n\nalice = \"x\"\n",
                "line 3: the password hash of alice is not a PHC string ($argon2id$…)",
            ),
            (
                "[users]\n\"*\" = \"x\"\n",
                "line 2: \"*\" and \"anonymous\" mean everybody and nobody in rules; choose another name",
            ),
            ("[users]\nalice = { argon2id = 1 }\n", "line 2: the password hash of alice is not a string"),
            ("[users]\nalice = {}\n", "line 2: alice has no argon2id"),
            ("[users]\nalice = { sha1 = \"\" }\n", "line 2: alice has sha1, which means nothing here"),
            (
                "[users]\nalice = { scram_sha_256 = 1 }\n",
                "line 2: the scram_sha_256 of alice is not a string",
            ),
            (
                "[users]\nalice = { scram_sha_256 = \"x\" }\n",
                "line 2: the scram_sha_256 of alice is not of the form SCRAM-SHA-256$iterations:salt$key:key",
            ),
            ("[user]\nalice = \"x\"\n", "line 1: only a table [users] belongs here, not user"),
            ("users = 1\n", "line 1: only a table [users] belongs here, not users"),
        ] {
            assert_eq!(Users::parse(text).unwrap_err(), sentence, "{text}");
        }
        assert!(Users::parse("[users]\nalice = \"x\nbob = 1\n").unwrap_err().starts_with("line 2: "));
        assert!(Users::parse("").unwrap().is_empty());
    }

    #[test]
    fn names_that_mean_something_else_are_refused() {
        for bad in ["", " a", "a ", "a\nb", "*", "anonymous", &"x".repeat(256)] {
            assert!(UserName::parse(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "Anonymous", "first last", "über", &"x".repeat(255)] {
            assert!(UserName::parse(good).is_ok(), "{good:?}");
        }
    }
}
