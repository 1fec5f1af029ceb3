//! What no compiler checks: which crate may know which, where clocks and disks are touched, whether every file has a
//! home and every page tells the truth. Each test reads the tree as text and names everything that is wrong with it.
//!
//! A ban is lifted by adding a line to the list beside it, with the reason: the list is the place to discuss it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

#[path = "tidy/pages.rs"]
mod pages;
#[path = "tidy/statements.rs"]
mod statements;
#[path = "tidy/text.rs"]
mod text;

use text::{standard_paths, stripped, words};

/// Lines above which a file should be two.
const LINES_MAX: usize = 600;
/// Files that are longer for now, and what they may not grow beyond. The list only gets shorter.
const LONGER: &[(&str, usize)] = &[
    ("protocols/stomp/src/execute.rs", 620),
    ("src/broker/tests/harness.rs", 660),
    ("src/broker/tests/queues.rs", 620),
    ("src/model/selector/tests.rs", 630),
];
/// Folders that hold nothing of ours.
const FOREIGN: &[&str] =
    &[".git", "target", "node_modules", "sabir-data", "__pycache__", ".venv", "artifacts"];

/// Who may depend on whom; whoever is not here is a stranger. Protocols are added by [`arrows_of`].
const ARROWS: &[(&str, &[&str])] = &[
    ("sabir-admin", &["sabir-broker", "sabir-json", "sabir-store", "sabir-model"]),
    ("sabir-broker", &["sabir-store", "sabir-model"]),
    ("sabir-store", &["sabir-model"]),
    ("sabir-security", &["sabir-model"]),
    ("sabir-model", &[]),
];
/// The synchronous core.
const CORE: &[&str] = &["src/model/", "src/broker/", "src/store/"];
/// Words of protocols. The core's names and texts are made of none of them; comments may compare, and a function's
/// name may end in the clause it is about (`…_mqtt_4_7_2_1`).
const PROTOCOL_WORDS: &[&str] = &[
    "stomp",
    "mqtt",
    "amqp",
    "openwire",
    "kafka",
    "websocket",
    "connack",
    "puback",
    "pubrec",
    "pubrel",
    "pubcomp",
    "suback",
    "unsuback",
    "pingreq",
    "pingresp",
];
/// What a pure crate may not name in the standard library. `std::time::Duration` and `std::net::IpAddr` are values.
const IMPURE: &[&str] = &[
    "std::env",
    "std::fs",
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::time::UNIX_EPOCH",
];
/// What a pure or synchronous crate may not depend on.
const RUNTIMES: &[&str] = &["tokio", "axum", "hyper", "hyper-util", "mio", "socket2", "async-std", "smol"];
/// Where the machine's clock is read.
const CLOCK_READERS: &[(&str, &str)] = &[
    ("src/net/clock.rs", "the clock that everything else asks"),
    ("src/net/http/party.rs", "long polls wait by the runtime's timer, whose time is its own"),
    ("src/store/fs.rs", "the disk's own time: how long a sync took, when an interval ends"),
    ("src/cli/", "a client of the broker: its deadlines are its own"),
    ("src/bench/", "measures time"),
    ("protocols/stomp/examples/", "measures time"),
    ("src/broker/examples/", "measures time"),
    ("src/store/examples/", "measures time"),
    ("tests/", "waits for other processes"),
];
/// Who may ask the disk to be sure.
const SYNCERS: &[(&str, &str)] = &[
    ("src/store/", "the message log"),
    (
        "src/security/users.rs",
        "`sabir user` replaces the users file as a whole; the running broker only reads it",
    ),
    ("tests/powerloss/", "is a file system: it is asked to sync"),
];
/// Where a thread may sleep.
const SLEEPERS: &[(&str, &str)] = &[
    ("src/cli/publish.rs", "`sabir pub --rate` is slow on purpose"),
    ("src/bench/", "looks at the counters every millisecond"),
    ("tests/it/server.rs", "looks whether a process has ended"),
    ("tests/it/limits.rs", "the measurement below"),
    ("src/store/examples/backlog.rs", "looks every second whether the keeper still works"),
    ("tests/it/overload/mod.rs", "a flood leaves the machine some time for others"),
    (
        "src/store/reclaim.rs",
        "the keeper's thread waits for the committer's, which publishes just before it applies",
    ),
];

/// Tests that are run by hand.
const MEASUREMENTS: &[(&str, &str)] =
    &[("tests/it/limits.rs", "prints what an idle connection costs; checks nothing")];

/// A file of the tree: its path with `/`, its text, and the text without comments and without strings.
struct Source {
    path: String,
    text: String,
    code: String,
}

struct Tree {
    files: BTreeSet<String>,
    folders: BTreeSet<String>,
    rust: Vec<Source>,
}

static TREE: LazyLock<Tree> = LazyLock::new(|| {
    let mut tree = Tree { files: BTreeSet::new(), folders: BTreeSet::new(), rust: Vec::new() };
    walk(&root(), "", &mut tree);
    for path in &tree.files {
        if has_extension(path, "rs") {
            let text = read(path);
            let code = stripped(&text, false);
            tree.rust.push(Source { path: path.clone(), text, code });
        }
    }
    tree
});

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|found| found == extension)
}

fn walk(dir: &Path, prefix: &str, tree: &mut Tree) {
    for entry in fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
        let entry = entry.expect("an entry of a folder that could be listed");
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
        let kind = entry.file_type().expect("an entry has a type");
        if kind.is_dir() && !FOREIGN.contains(&name.as_str()) {
            tree.folders.insert(path.clone());
            walk(&entry.path(), &path, tree);
        } else if kind.is_file() {
            tree.files.insert(path);
        }
    }
}

fn markdown() -> impl Iterator<Item = &'static String> {
    TREE.files.iter().filter(|path| has_extension(path, "md"))
}

/// Fails with everything that was found.
fn judge(rule: &str, problems: &[String]) {
    let mut list = String::new();
    for problem in problems {
        let _ = write!(list, "\n  {problem}");
    }
    assert!(problems.is_empty(), "{rule}:{list}");
}

fn listed(path: &str, list: &[(&str, &str)]) -> bool {
    list.iter()
        .any(|(allowed, _)| if allowed.ends_with('/') { path.starts_with(allowed) } else { path == *allowed })
}

/// A package: its folder, its name, what its sections hold.
struct Manifest {
    folder: String,
    name: String,
    sections: BTreeMap<String, Vec<(String, String)>>,
}

impl Manifest {
    fn load(path: &str) -> Self {
        let mut sections: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
        let mut section = String::new();
        for line in read(path).lines().map(str::trim) {
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.split(']').next()) {
                section = name.trim_matches('[').to_owned();
                sections.entry(section.clone()).or_default();
            } else if let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) {
                let pair = (key.trim().to_owned(), value.trim().trim_matches('"').to_owned());
                sections.entry(section.clone()).or_default().push(pair);
            }
        }
        let folder = path.strip_suffix("Cargo.toml").unwrap_or(path).to_owned();
        let name = sections.get("package").and_then(|package| package.iter().find(|(key, _)| key == "name"));
        let name = name.map(|(_, name)| name.clone()).unwrap_or_default();
        Self { folder, name, sections }
    }

    fn all() -> Vec<Self> {
        let manifests =
            TREE.files.iter().filter(|path| *path == "Cargo.toml" || path.ends_with("/Cargo.toml"));
        manifests.map(|path| Self::load(path)).collect()
    }

    /// The crates it depends on, for tests and builds too.
    fn dependencies(&self) -> BTreeSet<&str> {
        let sections = self.sections.iter().filter(|(name, _)| {
            name.split('.').any(|part| part.ends_with("dependencies")) && !name.starts_with("workspace")
        });
        sections
            .flat_map(|(name, pairs)| {
                let own = name.rsplit_once("dependencies.").map(|(_, name)| name);
                own.into_iter().chain(
                    pairs
                        .iter()
                        .filter(move |_| own.is_none())
                        .map(|(key, _)| key.split('.').next().unwrap_or(key)),
                )
            })
            .collect()
    }

    /// The files that are roots of its crates.
    fn roots(&self) -> Vec<String> {
        let mut roots: Vec<String> =
            ["lib.rs", "src/lib.rs", "src/main.rs", "build.rs"].map(str::to_owned).to_vec();
        for (_, pairs) in
            self.sections.iter().filter(|(name, _)| ["lib", "bin", "test"].contains(&name.as_str()))
        {
            roots.extend(pairs.iter().filter(|(key, _)| key == "path").map(|(_, path)| path.clone()));
        }
        let mut roots: Vec<String> = roots.iter().map(|root| format!("{}{root}", self.folder)).collect();
        for folder in ["examples/", "benches/", "fuzz_targets/"] {
            let folder = format!("{}{folder}", self.folder);
            roots.extend(TREE.files.iter().filter(|path| path.starts_with(&folder)).cloned());
        }
        let discovers = !self
            .sections
            .get("package")
            .is_some_and(|package| package.iter().any(|(key, value)| key == "autotests" && value == "false"));
        let tests = format!("{}tests/", self.folder);
        let own =
            |path: &&String| path.strip_prefix(&tests).is_some_and(|file| discovers && !file.contains('/'));
        roots.extend(TREE.files.iter().filter(own).cloned());
        roots.retain(|root| TREE.files.contains(root));
        roots
    }
}

/// What a member may depend on inside the workspace.
fn arrows_of(manifest: &Manifest, protocols: &[&str]) -> Option<Vec<String>> {
    let own = |list: &[&str]| Some(list.iter().map(|name| (*name).to_owned()).collect());
    if manifest.name == "sabir-http" {
        // Both show messages in the JSON form, which is the other's.
        return own(&["sabir-json", "sabir-model"]);
    }
    if manifest.folder.starts_with("protocols/") {
        return own(&["sabir-model"]);
    }
    if manifest.name == "sabir-bench" {
        return own(&[protocols, &["sabir-model"]].concat());
    }
    if manifest.name == "sabir" {
        let inner: Vec<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
        return own(&[protocols, &inner, &["sabir-bench"]].concat());
    }
    ARROWS.iter().find(|(name, _)| *name == manifest.name).and_then(|(_, arrows)| own(arrows))
}

#[test]
fn dependencies_point_one_way() {
    let manifests = Manifest::all();
    let protocols: Vec<&str> =
        manifests.iter().filter(|m| m.folder.starts_with("protocols/")).map(|m| m.name.as_str()).collect();
    let mut problems = Vec::new();
    for manifest in manifests.iter().filter(|manifest| !manifest.folder.starts_with("tests/")) {
        let Some(allowed) = arrows_of(manifest, &protocols) else {
            problems.push(format!("{} is in no arrow; add it to ARROWS in tests/tidy.rs", manifest.name));
            continue;
        };
        for name in manifest.dependencies() {
            if name.starts_with("sabir") && !allowed.iter().any(|allowed| allowed == name) {
                problems.push(format!("{} must not depend on {name}", manifest.name));
            }
            let pure = manifest.folder.starts_with("protocols/") || CORE.contains(&manifest.folder.as_str());
            if pure && RUNTIMES.contains(&name) {
                problems.push(format!("{} must do without {name}", manifest.name));
            }
        }
        let folder = manifest.folder.trim_end_matches('/');
        let member = format!("    \"{}\",", if folder.is_empty() { "." } else { folder });
        if !read("Cargo.toml").contains(&member) {
            problems.push(format!("{folder} is no member of the workspace"));
        }
    }
    judge(
        "root → admin → broker → store → model, root → protocols → model, root → security → model",
        &problems,
    );
}

#[test]
fn protocol_crates_and_the_model_open_no_socket_and_read_no_clock() {
    let mut problems = Vec::new();
    let pure = |path: &str| {
        path.starts_with("src/model/") || (path.starts_with("protocols/") && path.contains("/src/"))
    };
    for source in TREE.rust.iter().filter(|source| pure(&source.path)) {
        for path in standard_paths(&source.code) {
            let impure =
                IMPURE.iter().any(|impure| path == *impure || path.starts_with(&format!("{impure}::")));
            if impure && path != "std::net::IpAddr" {
                problems.push(format!("{}: {path}", source.path));
            }
        }
    }
    judge("bytes and instants in, values out", &problems);
}

/// The head of a function without the clause that its name cites.
fn without_clause(line: &str) -> &str {
    let Some((head, _)) = line.split_once('(').filter(|_| line.trim_start().starts_with("fn ")) else {
        return line;
    };
    let name = head.trim_end_matches(|c: char| c.is_ascii_digit() || c == '_');
    if name == head { line } else { name.rsplit_once('_').map_or(name, |(name, _)| name) }
}

#[test]
fn the_core_names_no_protocol() {
    let mut problems = Vec::new();
    for source in TREE.rust.iter().filter(|source| CORE.iter().any(|core| source.path.starts_with(core))) {
        for (number, line) in stripped(&source.text, true).lines().enumerate() {
            for word in words(without_clause(line)) {
                if PROTOCOL_WORDS.contains(&word.trim_end_matches(|c: char| c.is_ascii_digit())) {
                    problems.push(format!("{}:{}: {word}", source.path, number + 1));
                }
            }
        }
    }
    judge("model, broker and store are neutral", &problems);
}

#[test]
fn the_core_never_awaits() {
    let mut problems = Vec::new();
    for source in TREE.rust.iter().filter(|source| CORE.iter().any(|core| source.path.starts_with(core))) {
        for (number, line) in source.code.lines().enumerate() {
            let keyword = |word: &str| {
                let behind = line.split(word).nth(1).and_then(|rest| rest.chars().next());
                line.contains(word) && !behind.is_some_and(|c| c.is_alphanumeric() || c == '_')
            };
            if keyword(".await") || keyword("async") {
                problems.push(format!("{}:{}", source.path, number + 1));
            }
        }
    }
    judge("the core is synchronous, so nothing waits while its state is locked", &problems);
}

/// Every use of some words outside the places listed for them.
fn uses_outside(words: &[&str], list: &[(&str, &str)]) -> Vec<String> {
    let mut problems = Vec::new();
    for source in TREE.rust.iter().filter(|source| !listed(&source.path, list)) {
        for (number, line) in source.code.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(**word)) {
                problems.push(format!("{}:{}: {word}", source.path, number + 1));
            }
        }
    }
    problems
}

#[test]
fn only_the_store_syncs() {
    judge(
        "ask src/store for durability",
        &uses_outside(&["sync_all", "sync_data", "fsync(", "fdatasync("], SYNCERS),
    );
}

#[test]
fn the_machines_clock_is_read_in_listed_places_only() {
    judge("take time from a Clock", &uses_outside(&["Instant::now", "SystemTime::now"], CLOCK_READERS));
}

#[test]
fn no_thread_sleeps_for_correctness() {
    judge("wait for what happens, not for time", &uses_outside(&["thread::sleep"], SLEEPERS));
}

#[test]
fn nothing_unfinished_is_left() {
    let mut problems = uses_outside(&["todo!(", "unimplemented!(", "dbg!("], &[]);
    problems.extend(uses_outside(&["#[ignore"], MEASUREMENTS));
    for source in &TREE.rust {
        for (number, line) in source.text.lines().enumerate() {
            if ["// TODO", "// FIXME", "// XXX"].iter().any(|mark| line.trim_start().starts_with(mark)) {
                problems.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    judge("finish it, or say in docs/roadmap.md that it is not there", &problems);
}

/// The modules that a file declares outside of inline ones, with the path an attribute may give.
fn modules(source: &Source) -> Vec<(String, Option<String>)> {
    let mut found = Vec::new();
    let mut path = None;
    for (line, whole) in source.code.lines().zip(stripped(&source.text, true).lines()) {
        let line = line.trim();
        if line.starts_with("#[path") {
            path = whole.split('"').nth(1).map(str::to_owned);
        }
        let after = line.strip_prefix("pub ").or_else(|| line.strip_prefix("pub(crate) ")).unwrap_or(line);
        if let Some(name) = after.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) {
            found.push((name.trim().to_owned(), path.take()));
        }
    }
    found
}

#[test]
fn every_source_file_belongs_to_a_crate() {
    let mut open: Vec<(String, bool)> = Vec::new();
    for manifest in Manifest::all() {
        open.extend(manifest.roots().into_iter().map(|root| (root, true)));
    }
    let mut reached = BTreeSet::new();
    while let Some((path, is_root)) = open.pop() {
        let Some(source) = TREE.rust.iter().find(|source| source.path == path) else { continue };
        if !reached.insert(path.clone()) {
            continue;
        }
        let (folder, file) = path.rsplit_once('/').unwrap_or(("", &path));
        let stem = file.trim_end_matches(".rs");
        let inside = if is_root || stem == "mod" { folder.to_owned() } else { format!("{folder}/{stem}") };
        for (name, given) in modules(source) {
            let candidates = match given {
                Some(given) => vec![format!("{folder}/{given}")],
                None => vec![format!("{inside}/{name}.rs"), format!("{inside}/{name}/mod.rs")],
            };
            open.extend(
                candidates.into_iter().filter(|path| TREE.files.contains(path)).map(|path| (path, false)),
            );
        }
    }
    let orphans: Vec<String> = TREE
        .rust
        .iter()
        .filter(|source| !reached.contains(&source.path))
        .map(|source| source.path.clone())
        .collect();
    judge("no module declares these files", &orphans);
}

#[test]
fn files_stay_small_enough_to_read() {
    let mut problems = Vec::new();
    for source in &TREE.rust {
        let lines = source.text.lines().count();
        let listed = LONGER.iter().find(|(path, _)| *path == source.path).map(|(_, ceiling)| *ceiling);
        match listed {
            None if lines > LINES_MAX => {
                problems.push(format!("{} has {lines} lines; {LINES_MAX} are enough", source.path));
            }
            Some(ceiling) if lines > ceiling => {
                problems.push(format!("{} has grown to {lines} lines from {ceiling}; split it", source.path));
            }
            Some(ceiling) if lines <= LINES_MAX || lines + 50 < ceiling => {
                problems.push(format!("{} has only {lines} lines now: lower its ceiling", source.path));
            }
            _ => {}
        }
    }
    for (path, _) in LONGER.iter().filter(|(path, _)| !TREE.files.contains(*path)) {
        problems.push(format!("{path} is gone: take it off the list"));
    }
    judge("the ratchet of file sizes", &problems);
}
