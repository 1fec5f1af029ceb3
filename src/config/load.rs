//! Reads every source, in rising order, and says everything that is wrong with them.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::nearest::nearest;
use super::table::{Field, Preset};
use super::value::Raw;
use super::{Config, Entries, LISTS, Outline, SECTIONS, check};

/// What the prefix of an environment variable must be.
const ENVIRONMENT_PREFIX: &str = "SABIR__";

/// Keys of other brokers that will be looked for here, and why they are not.
const ABSENT: [(&str, &str); 4] = [
    ("virtual_topic.local", "there is no network of brokers, so every message is local"),
    ("composite.copy_message", "every target always gets a copy of its own"),
    ("mirrored_queues.copy_message", "the topic always gets a copy of its own"),
    ("policy.memory_limit", "limits.memory_bytes_max bounds memory for all destinations together"),
];

/// Where configuration comes from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// Variables of the environment; others than `SABIR__…` are passed over.
    pub environment: Vec<(OsString, OsString)>,
    /// `section.key=value`, as on the command line.
    pub sets: Vec<String>,
    /// The data directory of the command line.
    pub data_dir: Option<PathBuf>,
}

/// The variables that concern us, by name.
#[must_use]
pub fn environment() -> Vec<(OsString, OsString)> {
    let ours = |name: &OsString| name.to_string_lossy().starts_with(ENVIRONMENT_PREFIX);
    let mut found: Vec<_> = std::env::vars_os().filter(|(name, _)| ours(name)).collect();
    found.sort();
    found
}

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Nowhere.
    Default,
    /// On this line of this file.
    File(PathBuf, usize),
    /// In this variable.
    Environment(String),
    /// In a `--set`.
    Set(String),
    /// In `--data-dir`.
    DataDir,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{} line {line}", path.display()),
            Self::Environment(name) => f.write_str(name),
            Self::Set(text) => write!(f, "--set {text}"),
            Self::DataDir => f.write_str("--data-dir"),
        }
    }
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where, if it is one place.
    pub place: Option<Place>,
    /// What.
    pub sentence: String,
}

impl Problem {
    pub(crate) fn at(place: Place, sentence: impl Into<String>) -> Self {
        Self { place: Some(place), sentence: sentence.into() }
    }

    pub(crate) fn somewhere(sentence: impl Into<String>) -> Self {
        Self { place: None, sentence: sentence.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{place}: {}", self.sentence),
            None => f.write_str(&self.sentence),
        }
    }
}

impl std::error::Error for Problem {}

/// Configuration, and where each key's value came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    places: HashMap<(&'static str, &'static str), Place>,
    pub(super) entry_places: HashMap<&'static str, Vec<Place>>,
}

impl Loaded {
    /// Where the value of a key was written.
    #[must_use]
    pub fn place(&self, section: &str, key: &str) -> &Place {
        self.places
            .iter()
            .find_map(|((one, other), place)| (*one == section && *other == key).then_some(place))
            .unwrap_or(&Place::Default)
    }
}

impl Config {
    /// Reads all sources.
    ///
    /// # Errors
    /// Everything that is wrong with them, in order; never an empty list.
    pub fn load(sources: &Sources) -> Result<Loaded, Vec<Problem>> {
        let mut reader = Reader::default();
        if let Some(path) = &sources.file {
            reader.file(path);
        }
        for (name, value) in &sources.environment {
            reader.variable(name, value);
        }
        for text in &sources.sets {
            reader.set(text);
        }
        if let Some(dir) = &sources.data_dir {
            match dir.to_str() {
                Some(text) => reader.assign("store", "dir", Raw::Text(text.to_owned()), Place::DataDir),
                None => reader.problem(Place::DataDir, "the path is not valid UTF-8"),
            }
        }
        reader.finish()
    }
}

#[derive(Default)]
struct Reader {
    keys: HashMap<(&'static str, &'static str), (Raw, Place)>,
    lists: HashMap<&'static str, (Entries, Vec<Place>)>,
    problems: Vec<Problem>,
}

impl Reader {
    fn problem(&mut self, place: Place, sentence: impl Into<String>) {
        self.problems.push(Problem::at(place, sentence));
    }

    fn finish(mut self) -> Result<Loaded, Vec<Problem>> {
        let keys = |section: &str, index: usize| {
            let outline = SECTIONS.iter().find(|outline| outline.name == section);
            outline.and_then(|outline| Some((outline, outline.fields.get(index)?))).map_or(
                Raw::Unset,
                |(outline, field)| match self.keys.get(&(outline.name, field.name)) {
                    Some((raw, _)) => raw.clone(),
                    None => field.preset.raw(),
                },
            )
        };
        let lists = |name: &str| self.lists.get(name).map(|(entries, _)| entries.clone());
        let built = Config::build(&keys, &lists);
        let config = match built {
            Ok(config) => config,
            Err(sentence) => {
                self.problems.push(Problem::somewhere(sentence));
                return Err(self.problems);
            }
        };
        let loaded = Loaded {
            config,
            places: self.keys.into_iter().map(|(key, (_, place))| (key, place)).collect(),
            entry_places: self.lists.into_iter().map(|(name, (_, places))| (name, places)).collect(),
        };
        self.problems.extend(check::problems(&loaded));
        if self.problems.is_empty() {
            Ok(loaded)
        } else {
            // The file's first, by line; the rest in the order they were found.
            self.problems.sort_by_key(|problem| match &problem.place {
                Some(Place::File(_, line)) => (0, *line),
                _ => (1, 0),
            });
            Err(self.problems)
        }
    }

    /// Takes a value for a key, unless it cannot be read.
    fn assign(&mut self, section: &str, key: &str, raw: Raw, place: Place) {
        let Some(outline) = SECTIONS.iter().find(|outline| outline.name == section) else {
            let sentence = if LISTS.iter().any(|list| list.name == section) {
                format!("{section} is a list and can only be written in the file, as [[{section}]]")
            } else {
                unknown_section(section, Some(key))
            };
            return self.problem(place, sentence);
        };
        let Some(field) = outline.fields.iter().find(|field| field.name == key) else {
            return self.problem(place, unknown_key(outline, key));
        };
        match (field.check)(&raw) {
            Ok(()) => {
                self.keys.insert((outline.name, field.name), (raw, place));
            }
            Err(found) => self.problem(place, mismatch(&format!("{section}.{key}"), field, &found)),
        }
    }

    fn variable(&mut self, name: &OsString, value: &OsString) {
        let shown = name.to_string_lossy().into_owned();
        let Some(rest) = shown.strip_prefix(ENVIRONMENT_PREFIX) else { return };
        let place = Place::Environment(shown.clone());
        let (Some(value), Some((section, key))) = (value.to_str(), rest.split_once("__")) else {
            return self.problem(place, "must be SABIR__SECTION__KEY, with a value in UTF-8");
        };
        self.assign(&section.to_lowercase(), &key.to_lowercase(), Raw::Words(value.to_owned()), place);
    }

    fn set(&mut self, text: &str) {
        let place = Place::Set(text.to_owned());
        let parts =
            text.split_once('=').and_then(|(name, value)| Some((name.trim().split_once('.')?, value)));
        let Some(((section, key), value)) = parts else {
            return self.problem(place, "must be section.key=value");
        };
        self.assign(section, key, Raw::Words(value.trim().to_owned()), place);
    }

    fn file(&mut self, path: &Path) {
        let text = match std::fs::read(path).map(String::from_utf8) {
            Ok(Ok(text)) => text,
            Ok(Err(_)) => {
                return self.problems.push(Problem::somewhere(format!("{} is not UTF-8", path.display())));
            }
            Err(error) => {
                let sentence = format!("{} cannot be read: {error}", path.display());
                return self.problems.push(Problem::somewhere(sentence));
            }
        };
        let document = Document { path, text: &text };
        let (root, errors) = DeTable::parse_recoverable(&text);
        for error in errors {
            let place = document.place(error.span().map_or(0, |span| span.start));
            self.problem(place, error.message());
        }
        for (name, value) in root.get_ref() {
            self.top_level(&document, name, value);
        }
    }

    fn top_level(&mut self, document: &Document<'_>, name: &Name<'_>, value: &Spanned<DeValue<'_>>) {
        let place = document.place(name.span().start);
        let name = name.get_ref().as_ref();
        let list = LISTS.iter().find(|list| list.name == name);
        let is_section = SECTIONS.iter().any(|section| section.name == name);
        match (value.get_ref(), list) {
            (DeValue::Array(entries), Some(list)) => {
                let slot = self.lists.entry(list.name).or_default();
                slot.0.reserve(entries.len());
                for entry in entries {
                    self.entry(document, list, entry);
                }
            }
            (_, Some(_)) => self.problem(place, format!("{name} is a list: write [[{name}]] for each entry")),
            (DeValue::Table(keys), None) if is_section => {
                for (key, value) in keys {
                    let place = document.place(key.span().start);
                    self.assign(name, key.get_ref(), raw(value.get_ref()), place);
                }
            }
            (_, None) if is_section => {
                self.problem(place, format!("{name} is a section: write [{name}] once"))
            }
            (DeValue::Table(_) | DeValue::Array(_), None) => self.problem(place, unknown_section(name, None)),
            (_, None) => {
                let inside =
                    SECTIONS.iter().find(|section| section.fields.iter().any(|field| field.name == name));
                let hint = inside
                    .map_or_else(String::new, |section| format!("; did you mean {}.{name}?", section.name));
                self.problem(place, format!("{name} stands outside every section{hint}"));
            }
        }
    }

    fn entry(&mut self, document: &Document<'_>, list: &'static Outline, entry: &Spanned<DeValue<'_>>) {
        let start = document.place(entry.span().start);
        let DeValue::Table(keys) = entry.get_ref() else {
            return self
                .problem(start, format!("{} is a list of tables: write [[{}]]", list.name, list.name));
        };
        let before = self.problems.len();
        let mut values: Vec<Option<Raw>> = list.fields.iter().map(|_| None).collect();
        for (key, value) in keys {
            let place = document.place(key.span().start);
            let found =
                list.fields.iter().zip(&mut values).find(|(field, _)| field.name == key.get_ref().as_ref());
            let Some((field, slot)) = found else {
                self.problem(place, unknown_key(list, key.get_ref()));
                continue;
            };
            let raw = raw(value.get_ref());
            match (field.check)(&raw) {
                Ok(()) => {}
                Err(found) => {
                    self.problem(place, mismatch(&format!("{}.{}", list.name, field.name), field, &found))
                }
            }
            *slot = Some(raw);
        }
        for (field, value) in list.fields.iter().zip(&values) {
            if field.preset == Preset::Required && value.is_none() {
                self.problem(start.clone(), format!("this [[{}]] lacks {}", list.name, field.name));
            }
        }
        if self.problems.len() > before {
            return;
        }
        let values =
            list.fields.iter().zip(values).map(|(field, value)| value.unwrap_or_else(|| field.preset.raw()));
        let slot = self.lists.entry(list.name).or_default();
        slot.0.push(values.collect());
        slot.1.push(start);
    }
}

type Name<'a> = Spanned<std::borrow::Cow<'a, str>>;

struct Document<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Document<'_> {
    fn place(&self, offset: usize) -> Place {
        let before = self.text.as_bytes().get(..offset).unwrap_or_default();
        Place::File(self.path.to_owned(), before.iter().filter(|byte| **byte == b'\n').count() + 1)
    }
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.clone().into_owned()),
        DeValue::Integer(number) => match i128::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Raw::Integer(number),
            Err(_) => Raw::Other("a number too large to read"),
        },
        DeValue::Float(_) => Raw::Other("a number with a fraction"),
        DeValue::Boolean(flag) => Raw::Flag(*flag),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Array(items) => Raw::List(items.iter().map(|item| raw(item.get_ref())).collect()),
        DeValue::Table(entries) => Raw::Table(
            entries
                .iter()
                .map(|(key, value)| (key.get_ref().clone().into_owned(), raw(value.get_ref())))
                .collect(),
        ),
    }
}

fn mismatch(name: &str, field: &Field, found: &str) -> String {
    format!("{name} must be {}, not {found}", (field.expects)())
}

/// The sentence for a key that no table has.
fn unknown_key(outline: &Outline, key: &str) -> String {
    let name = format!("{}.{key}", outline.name);
    if let Some((_, why)) = ABSENT.iter().find(|(absent, _)| *absent == name) {
        return format!("there is no key {name}: {why}");
    }
    if let Some(near) = nearest(key, outline.fields.iter().map(|field| field.name)) {
        return format!("unknown key {name}; did you mean {}.{near}?", outline.name);
    }
    let elsewhere = SECTIONS.iter().chain(&LISTS).find_map(|other| {
        let near = nearest(key, other.fields.iter().map(|field| field.name))?;
        Some(format!("{}.{near}", other.name))
    });
    match elsewhere {
        Some(near) => format!("unknown key {name}; did you mean {near}?"),
        None => format!("unknown key {name}; `sabir config sample` lists them all"),
    }
}

fn unknown_section(section: &str, key: Option<&str>) -> String {
    let what = match key {
        Some(key) => format!("unknown key {section}.{key}"),
        None => format!("unknown section [{section}]"),
    };
    let names = || SECTIONS.iter().chain(&LISTS).map(|outline| outline.name);
    match (nearest(section, names()), key) {
        (Some(near), Some(key)) => {
            let outline = SECTIONS.iter().find(|outline| outline.name == near);
            let near_key = outline.and_then(|one| nearest(key, one.fields.iter().map(|field| field.name)));
            match near_key {
                Some(near_key) => format!("{what}; did you mean {near}.{near_key}?"),
                None => format!("{what}; did you mean the section {near}?"),
            }
        }
        (Some(near), None) => format!("{what}; did you mean [{near}]?"),
        (None, _) => format!("{what}; `sabir config sample` lists them all"),
    }
}
