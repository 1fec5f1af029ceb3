//! The tables in print: the sample file, the effective configuration, `--help`, the documentation page.

use std::fmt::Write as _;

use super::load::{Loaded, Place};
use super::table::{Field, Preset, Table};
use super::{Config, LISTS, Outline, SECTIONS, VirtualTopic};

/// The default of a field as TOML, if it has one.
fn preset(outline_values: &[Option<String>], index: usize) -> Option<&str> {
    outline_values.get(index).and_then(Option::as_deref)
}

fn wrapped(out: &mut String, prefix: &str, text: &str) {
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && prefix.len() + line.len() + word.len() + 1 > 110 {
            let _ = writeln!(out, "{prefix}{line}");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    let _ = writeln!(out, "{prefix}{line}");
}

/// One example per list, which the sample shows and a test reads.
const EXAMPLES: [&str; 4] = [
    r#"# [[policy]]
# destination = "queue://orders.>"
# messages_max = 1_000_000
# dead_letter = "individual"
"#,
    r#"# [[composite]]
# name = "queue://orders"
# forward_to = ["queue://billing", { destination = "topic://large", selector = "amount > 1000" }]
"#,
    r#"# [[virtual_topic]]
# name = "VirtualTopic.>"
# prefix = "Consumer.*."
"#,
    r#"# [[permission]]
# effect = "allow"
# users = ["alice"]
# actions = ["connect", "send", "create"]
# destinations = ["queue://orders.>", "temp-queue://>"]
"#,
];

/// A complete file in which every key is commented out, at its default.
#[must_use]
pub fn sample() -> String {
    let mut out = String::new();
    out.push_str(
        "# Every key of Sabir at its default. Uncomment what you change.\n\
         # A key is also an environment variable, SABIR__SECTION__KEY, and a --set section.key=value.\n",
    );
    let defaults = Config::default().show_sections();
    for (outline, values) in SECTIONS.iter().zip(&defaults) {
        out.push('\n');
        wrapped(&mut out, "# ", outline.doc);
        let _ = writeln!(out, "[{}]", outline.name);
        for (index, field) in outline.fields.iter().enumerate() {
            wrapped(&mut out, "# ", field.doc());
            let _ = writeln!(out, "# {} = {}", field.name, preset(values, index).unwrap_or("\"\""));
        }
    }
    for (outline, example) in LISTS.iter().zip(EXAMPLES) {
        out.push('\n');
        wrapped(&mut out, "# ", outline.doc);
        out.push_str(example);
        out.push_str("# Its keys:\n");
        for field in outline.fields {
            let otherwise = match field.preset {
                Preset::Required => "required".to_owned(),
                Preset::Unset => "unset".to_owned(),
                Preset::Words("") => "empty".to_owned(),
                Preset::Words(words) => words.to_owned(),
            };
            wrapped(&mut out, "#   ", &format!("{} ({otherwise}): {}", field.name, field.doc()));
        }
    }
    out
}

/// The keys, one per line, for `--help`.
#[must_use]
pub fn help() -> String {
    let mut out =
        String::from("Keys for --set, for the file and, as SABIR__SECTION__KEY, for the environment:\n");
    let defaults = Config::default().show_sections();
    for (outline, values) in SECTIONS.iter().zip(&defaults) {
        for (index, field) in outline.fields.iter().enumerate() {
            let name = format!("{}.{}", outline.name, field.name);
            let value = preset(values, index).unwrap_or("\"\"");
            let _ = writeln!(out, "  {name}={}", value.trim_matches('"'));
        }
    }
    out.push_str("What each means, and the lists of policies, composite destinations, virtual topics and permissions:\n");
    out.push_str("  sabir config sample\n");
    out
}

impl Loaded {
    /// The effective configuration as a file that reads back, each value with its origin.
    #[must_use]
    pub fn show(&self) -> String {
        let mut out = String::new();
        if self.config.virtual_topic.is_empty() {
            let _ = writeln!(out, "{} = []", VirtualTopic::NAME);
        }
        for (outline, values) in SECTIONS.iter().zip(&self.config.show_sections()) {
            let _ = writeln!(out, "{}[{}]", if out.is_empty() { "" } else { "\n" }, outline.name);
            for (index, field) in outline.fields.iter().enumerate() {
                let value = preset(values, index).unwrap_or("\"\"");
                let _ = writeln!(
                    out,
                    "{} = {value}  # {}",
                    field.name,
                    origin(self.place(outline.name, field.name))
                );
            }
        }
        for (outline, entries) in LISTS.iter().zip(&self.config.show_lists()) {
            for (index, values) in entries.iter().enumerate() {
                let place = self.entry_places.get(outline.name).and_then(|places| places.get(index));
                let _ =
                    writeln!(out, "\n[[{}]]  # {}", outline.name, origin(place.unwrap_or(&Place::Default)));
                for (field, value) in outline.fields.iter().zip(values) {
                    if let Some(value) = value {
                        let _ = writeln!(out, "{} = {value}", field.name);
                    }
                }
            }
        }
        out
    }
}

/// Without the text of a `--set`, which would only repeat the value, and without what could end the comment.
fn origin(place: &Place) -> String {
    match place {
        Place::Set(_) => "--set".to_owned(),
        other => other.to_string().replace(char::is_control, " "),
    }
}

/// The page `docs/configuration.md`.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::from(
        "# Configuration\n\n\
         <!-- Made from the tables in src/config by a test; run it with UPDATE_EXPECT=1 to write it anew. -->\n\n\
         Sabir needs no configuration. What you want otherwise you say in a TOML file (`sabir serve --config FILE`), in the\n\
         environment, or on the command line; what comes later in this list wins:\n\n\
         1. the defaults below;\n\
         2. the file;\n\
         3. environment variables: `store.dir` is `SABIR__STORE__DIR`;\n\
         4. `--set store.dir=/var/lib/sabir`, as often as you like;\n\
         5. `--data-dir DIR`, which is `store.dir`.\n\n\
         A key that does not exist, a value of the wrong type or out of bounds, and keys that contradict each other are\n\
         errors, and the server does not start. `sabir config check` names all of them, `sabir config show` prints the\n\
         configuration in effect and where each value came from, and `sabir config sample` prints a file to begin with.\n\
         No key holds a password: those are kept, hashed, in the users file ([security](security.md)).\n\n\
         Sizes are numbers of bytes or texts such as `\"64 MiB\"`. Lists in the environment and on the command line are\n\
         separated by commas. The lists at the end of this page can only be written in the file.\n",
    );
    let defaults = Config::default();
    for (outline, values) in SECTIONS.iter().zip(&defaults.show_sections()) {
        let _ = writeln!(out, "\n## `[{}]`\n", outline.name);
        chapter(&mut out, outline, |index| preset(values, index).map(str::to_owned));
    }
    for (outline, example) in LISTS.iter().zip(EXAMPLES) {
        let _ = writeln!(out, "\n## `[[{}]]`\n", outline.name);
        chapter(&mut out, outline, |index| shown_preset(outline.fields.get(index)?));
        let _ = writeln!(out, "\n```toml\n{}```", example.replace("# ", ""));
    }
    out
}

/// The default of an entry's field as it would be written in the file.
fn shown_preset(field: &Field) -> Option<String> {
    let Preset::Words(words) = field.preset else { return None };
    let bare =
        matches!(words, "true" | "false") || (!words.is_empty() && words.bytes().all(|b| b.is_ascii_digit()));
    Some(if bare { words.to_owned() } else { super::value::quoted(words) })
}

fn chapter(out: &mut String, outline: &Outline, default: impl Fn(usize) -> Option<String>) {
    wrapped(out, "", outline.doc);
    out.push_str("\n| Key | Default | Value | Meaning |\n|---|---|---|---|\n");
    for (index, field) in outline.fields.iter().enumerate() {
        let default = match (field.preset, default(index)) {
            (Preset::Required, _) => "required".to_owned(),
            (_, Some(value)) => format!("`{value}`"),
            (_, None) => "unset".to_owned(),
        };
        let cell = |text: &str| text.replace('|', "\\|").replace('<', "&lt;");
        let expects = (field.expects)();
        let _ = writeln!(
            out,
            "| `{}` | {} | {} | {} |",
            field.name,
            cell(&default),
            cell(&expects),
            cell(field.doc())
        );
    }
}
