//! `sabir config`, and the arguments that say where configuration comes from.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use sabir_security::Users;

use super::{Failure, complain, output};
use crate::config::{Config, Loaded, Problem, Sources, environment, sample};

/// Where configuration comes from; the environment is read besides.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct ConfigArgs {
    /// A configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The directory of messages and users, as store.dir
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Set one key; may be repeated
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Name everything that is wrong with a configuration
    Check(FileArgs),
    /// Print the configuration in effect and where each value came from
    Show(FileArgs),
    /// Print a file with every key at its default
    Sample,
}

#[derive(Debug, Args)]
pub(super) struct FileArgs {
    /// A configuration file, as --config
    #[arg(value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgs,
}

impl FileArgs {
    fn into_config(self) -> ConfigArgs {
        ConfigArgs { config: self.file.or(self.config.config), ..self.config }
    }
}

impl ConfigArgs {
    fn read(self) -> Result<Loaded, Vec<Problem>> {
        Config::load(&Sources {
            file: self.config,
            environment: environment(),
            sets: self.set,
            data_dir: self.data_dir,
        })
    }

    /// The configuration, or everything that is wrong with it.
    pub(super) fn load(self) -> Result<Loaded, Failure> {
        self.read().map_err(|problems| {
            let lines: Vec<_> = problems.iter().map(Problem::to_string).collect();
            Failure::Usage(lines.join("\n"))
        })
    }
}

pub(super) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Sample => output::write(sample().as_bytes()),
        Command::Show(args) => output::write(args.into_config().load()?.show().as_bytes()),
        Command::Check(args) => {
            let loaded = args.into_config().load()?;
            let path = loaded.config.users_file();
            let users = Users::load(&path).map_err(|error| Failure::Usage(error.to_string()))?;
            loaded.config.check_exposure(!users.is_empty()).map_err(Failure::Usage)?;
            strangers(&loaded.config, &users);
            output::write(b"the configuration is good\n")
        }
    }
}

/// Rules may be written before their users are added, so an unknown name is a remark and no mistake.
fn strangers(config: &Config, users: &Users) {
    let mut told = Vec::new();
    for who in config.permission.iter().flat_map(|rule| &rule.users) {
        if let sabir_security::Who::User(name) = who
            && !users.names().any(|user| user == &**name)
            && !told.contains(&name)
        {
            complain(&format!("a [[permission]] speaks of {name}, who is not a user yet"));
            told.push(name);
        }
    }
}
