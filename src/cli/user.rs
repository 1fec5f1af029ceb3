//! `sabir user`: keeps the users file. A running broker notices by itself.

use std::io::{self, BufRead as _, IsTerminal as _};

use clap::{Args, Subcommand};
use sabir_security::{UserName, Users, UsersError};

use super::configuration::ConfigArgs;
use super::{Failure, output};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Add a user; the password is asked for, or read from standard input
    Add(NameArgs),
    /// Change a user's password
    Passwd(NameArgs),
    /// Remove a user
    Rm(NameArgs),
    /// Print the names of all users
    List(ConfigArgs),
}

#[derive(Debug, Args)]
pub(super) struct NameArgs {
    /// The user
    name: String,
    #[command(flatten)]
    config: ConfigArgs,
}

pub(super) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::List(args) => {
            let users = Users::load(&args.load()?.config.users_file()).map_err(|error| failed(&error))?;
            let lines: String = users.names().flat_map(|name| [name, "\n"]).collect();
            output::write(lines.as_bytes())
        }
        Command::Add(args) => {
            change(args, true, "added to", |users, name, password| users.add(name, password))
        }
        Command::Passwd(args) => change(args, true, "has a new password in", |users, name, password| {
            users.set_password(name, password)
        }),
        Command::Rm(args) => change(args, false, "removed from", |users, name, _| users.remove(&name)),
    }
}

fn failed(error: &UsersError) -> Failure {
    Failure::Failed(error.to_string())
}

fn change(
    args: NameArgs,
    asks: bool,
    what: &str,
    change: impl FnOnce(&mut Users, UserName, &[u8]) -> Result<(), String>,
) -> Result<(), Failure> {
    let name = UserName::parse(&args.name).map_err(Failure::Usage)?;
    let path = args.config.load()?.config.users_file();
    let password = if asks { ask(&name)? } else { String::new() };
    let named = name.to_string();
    Users::edit(&path, |users| change(users, name, password.as_bytes())).map_err(|error| failed(&error))?;
    output::write(format!("{named} {what} {}\n", path.display()).as_bytes())
}

/// The password: typed twice without echo, or the first line of what is piped in.
fn ask(name: &UserName) -> Result<String, Failure> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        let mut line = String::new();
        stdin.lock().read_line(&mut line).map_err(|error| Failure::input(&error))?;
        let password = line.strip_suffix('\n').unwrap_or(&line);
        return Ok(password.strip_suffix('\r').unwrap_or(password).to_owned());
    }
    let prompt = |text: String| {
        rpassword::prompt_password(text)
            .map_err(|error| Failure::Failed(format!("the password cannot be asked for: {error}")))
    };
    let password = prompt(format!("Password for {name}: "))?;
    if prompt("Once more: ".to_owned())? != password {
        return Err(Failure::Failed("the two passwords differ".to_owned()));
    }
    Ok(password)
}
