//! Allow and deny rules, and what they mean for one destination and for a whole pattern of them.
//!
//! The first rule that speaks about a user, an action and a destination decides. Without any rule everything is allowed;
//! with rules, what none of them speaks about is denied.

use sabir_model::access::{Action, Authorizer, Principal, Resource};
use sabir_model::destination::DestinationRef;
use sabir_model::pattern::{Pattern, PatternLevel};

/// What a rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Yes.
    Allow,
    /// No.
    Deny,
}

/// Whom a rule speaks about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// Everybody, anonymous included.
    Everyone,
    /// Those without a name.
    Anonymous,
    /// One user.
    User(Box<str>),
}

impl Who {
    /// Reads `*`, `anonymous` or a user's name.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text {
            "*" => Self::Everyone,
            "anonymous" => Self::Anonymous,
            name => Self::User(name.into()),
        }
    }

    fn is(&self, principal: &Principal) -> bool {
        match self {
            Self::Everyone => true,
            Self::Anonymous => principal.name().is_none(),
            Self::User(name) => principal.name() == Some(name),
        }
    }
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Yes or no.
    pub effect: Effect,
    /// Whom it speaks about; any of them.
    pub users: Vec<Who>,
    /// What it speaks about; any of them.
    pub actions: Vec<Action>,
    /// Where; any of them. `None` is everywhere, the server itself included.
    pub destinations: Option<Vec<Pattern>>,
}

impl Rule {
    fn concerns(&self, principal: &Principal, action: Action) -> bool {
        self.actions.contains(&action) && self.users.iter().any(|who| who.is(principal))
    }

    fn names(&self, destination: DestinationRef<'_>) -> bool {
        self.destinations.as_ref().is_none_or(|patterns| patterns.iter().any(|one| one.matches(destination)))
    }
}

/// The rules in force, in order.
#[derive(Clone, Debug, Default)]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// These rules, in this order. None at all allow everything.
    #[must_use]
    pub fn new(rules: Vec<Rule>) -> Self {
        Self(rules)
    }

    fn on_server(&self, principal: &Principal, action: Action) -> bool {
        // Connecting has no destination: who may do something somewhere and connect, may connect; who may not do
        // anything in one place, may still connect to do it in another.
        let mut speaking = self.0.iter().filter(|rule| {
            let everywhere = rule.destinations.is_none();
            rule.concerns(principal, action)
                && (everywhere || (action == Action::Connect && rule.effect == Effect::Allow))
        });
        speaking.next().is_some_and(|rule| rule.effect == Effect::Allow)
    }

    fn on_destination(&self, principal: &Principal, action: Action, destination: DestinationRef<'_>) -> bool {
        // Only its owner may read from a temporary destination, which the core sees to; and its name, which cannot be
        // guessed, is the permission to answer. So the rules are asked about making one.
        if destination.temporary && matches!(action, Action::Send | Action::Consume | Action::Browse) {
            return true;
        }
        let mut speaking =
            self.0.iter().filter(|rule| rule.concerns(principal, action) && rule.names(destination));
        speaking.next().is_some_and(|rule| rule.effect == Effect::Allow)
    }

    /// Conservative: it says no to some unions of allow rules that would together cover the pattern, never yes to a
    /// pattern of which a part is denied.
    fn on_pattern(&self, principal: &Principal, action: Action, wanted: &Pattern) -> bool {
        if let Some(literal) = wanted.as_literal() {
            return self.on_destination(principal, action, literal.as_ref());
        }
        for rule in self.0.iter().filter(|rule| rule.concerns(principal, action)) {
            let touches = |test: fn(&Pattern, &Pattern) -> bool| {
                rule.destinations.as_ref().is_none_or(|patterns| patterns.iter().any(|one| test(one, wanted)))
            };
            match rule.effect {
                Effect::Allow if touches(covers) => return true,
                Effect::Deny if touches(overlaps) => return false,
                Effect::Allow | Effect::Deny => {}
            }
        }
        false
    }
}

impl Authorizer for Rules {
    fn allows(&self, principal: &Principal, action: Action, resource: Resource<'_>) -> bool {
        if self.0.is_empty() {
            return true;
        }
        match resource {
            Resource::Server => self.on_server(principal, action),
            Resource::Destination(destination) => self.on_destination(principal, action, destination),
            Resource::Pattern(pattern) => self.on_pattern(principal, action, pattern),
        }
    }

    fn generation(&self) -> u64 {
        // Rules are fixed while the server runs.
        0
    }
}

/// Whether every name that `inner` matches is matched by `outer`.
fn covers(outer: &Pattern, inner: &Pattern) -> bool {
    same_sort(outer, inner) && levels_cover(outer.levels(), inner.levels())
}

/// Whether some name is matched by both.
fn overlaps(one: &Pattern, other: &Pattern) -> bool {
    same_sort(one, other) && levels_overlap(one.levels(), other.levels())
}

fn same_sort(one: &Pattern, other: &Pattern) -> bool {
    one.kind() == other.kind() && one.is_temporary() == other.is_temporary()
}

fn levels_cover<'a>(
    mut outer: impl Iterator<Item = PatternLevel<'a>>,
    mut inner: impl Iterator<Item = PatternLevel<'a>>,
) -> bool {
    loop {
        match (outer.next(), inner.next()) {
            (Some(PatternLevel::Rest), _) | (None, None) => return true,
            (None, Some(_)) | (Some(_), None | Some(PatternLevel::Rest)) => return false,
            (Some(wide), Some(narrow)) => {
                if wide != PatternLevel::One && wide != narrow {
                    return false;
                }
            }
        }
    }
}

fn levels_overlap<'a>(
    mut one: impl Iterator<Item = PatternLevel<'a>>,
    mut other: impl Iterator<Item = PatternLevel<'a>>,
) -> bool {
    loop {
        match (one.next(), other.next()) {
            (Some(PatternLevel::Rest), _) | (_, Some(PatternLevel::Rest)) | (None, None) => return true,
            (None, Some(_)) | (Some(_), None) => return false,
            (Some(here), Some(there)) => {
                if here != PatternLevel::One && there != PatternLevel::One && here != there {
                    return false;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use sabir_model::access::Remote;
    use sabir_model::destination::{Destination, Kind};

    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse_qualified(text, Kind::Queue).unwrap()
    }

    #[test]
    fn covering_and_overlap() {
        // outer, inner, covers, overlaps
        for (outer, inner, covered, overlapping) in [
            ("a", "a", true, true),
            ("a", "b", false, false),
            ("a.*", "a.b", true, true),
            ("a.*", "a", false, false),
            ("a.*", "a.b.c", false, false),
            ("a.>", "a", true, true),
            ("a.>", "a.b.c", true, true),
            ("a.>", "b", false, false),
            (">", "a.*.c.>", true, true),
            (">", ">", true, true),
            ("a.>", ">", false, true),
            ("a.*", "a.>", false, true),
            ("a.b", "a.*", false, true),
            ("a.>", "a.*.c", true, true),
            ("a.*.c", "a.>", false, true),
            ("*.b", "a.*", false, true),
            ("*.b", "a.*.c", false, false),
            ("*.*", "a.>", false, true),
            ("a.*.>", "a.>", false, true),
            ("a.>", "a.*.>", true, true),
            ("a.*.>", "a", false, false),
            ("a.b.>", "a", false, false),
            ("a", "a.b.>", false, false),
            ("a", "a.>", false, true),
            ("topic://a", "queue://a", false, false),
            ("temp-queue://>", "queue://a", false, false),
        ] {
            let (wide, narrow) = (pattern(outer), pattern(inner));
            assert_eq!(covers(&wide, &narrow), covered, "{outer} covers {inner}");
            assert_eq!(overlaps(&wide, &narrow), overlapping, "{outer} overlaps {inner}");
            assert_eq!(overlaps(&narrow, &wide), overlapping, "{inner} overlaps {outer}");
        }
    }

    /// Both tests against every name of up to three levels over a small alphabet: a cover misses no name, an overlap
    /// claimed absent has no witness.
    #[test]
    fn covering_and_overlap_agree_with_matching() {
        let words = ["a", "b"];
        let mut names = Vec::new();
        for x in words {
            names.push(x.to_owned());
            for y in words {
                names.push(format!("{x}.{y}"));
                names.extend(words.map(|z| format!("{x}.{y}.{z}")));
            }
        }
        let mut patterns = vec![pattern(">")];
        let level = ["a", "b", "*"];
        for x in level {
            patterns.extend([pattern(x), pattern(&format!("{x}.>"))]);
            for y in level {
                patterns.extend([pattern(&format!("{x}.{y}")), pattern(&format!("{x}.{y}.>"))]);
            }
        }
        for outer in &patterns {
            for inner in &patterns {
                let matched = |name: &String| {
                    let name = Destination::queue(name);
                    (outer.matches(name.as_ref()), inner.matches(name.as_ref()))
                };
                if covers(outer, inner) {
                    assert!(names.iter().all(|name| matched(name) != (false, true)), "{outer} {inner}");
                }
                let witness = names.iter().any(|name| matched(name) == (true, true));
                assert_eq!(overlaps(outer, inner), witness, "{outer} {inner}");
            }
        }
    }

    fn rule(effect: Effect, users: &[&str], actions: &[Action], destinations: &[&str]) -> Rule {
        Rule {
            effect,
            users: users.iter().map(|name| Who::parse(name)).collect(),
            actions: actions.to_vec(),
            destinations: (!destinations.is_empty())
                .then(|| destinations.iter().map(|text| pattern(text)).collect()),
        }
    }

    fn allowed(rules: &Rules, who: &str, action: Action, on: &str) -> bool {
        let principal = match who {
            "anonymous" => Principal::anonymous(Remote::Local),
            name => Principal::user(name, Remote::Local),
        };
        if on == "server" {
            return rules.allows(&principal, action, Resource::Server);
        }
        let pattern = pattern(on);
        match pattern.as_literal() {
            Some(destination) => {
                let direct = rules.allows(&principal, action, Resource::Destination(destination.as_ref()));
                let as_pattern = rules.allows(&principal, action, Resource::Pattern(&pattern));
                assert_eq!(direct, as_pattern, "a pattern without wildcards is its destination");
                direct
            }
            None => rules.allows(&principal, action, Resource::Pattern(&pattern)),
        }
    }

    #[test]
    fn without_rules_everything_is_allowed() {
        let rules = Rules::default();
        for action in Action::ALL {
            for on in ["server", "queue://a", "topic://>", "temp-queue://x"] {
                assert!(allowed(&rules, "anonymous", action, on));
                assert!(allowed(&rules, "alice", action, on));
            }
        }
    }

    #[test]
    fn the_first_rule_that_speaks_decides_and_silence_denies() {
        use Action::{Browse, Connect, Consume, Create, Manage, Send};
        use Effect::{Allow, Deny};
        let rules = Rules::new(vec![
            rule(Deny, &["mallory"], &Action::ALL, &[]),
            rule(Allow, &["*"], &[Connect], &[]),
            rule(Allow, &["alice"], &[Send], &["queue://orders.secret.alice"]),
            rule(Deny, &["*"], &[Send, Consume], &["queue://orders.secret.>"]),
            rule(Allow, &["alice", "bob"], &[Send, Consume, Create], &["queue://orders.>", "temp-queue://>"]),
            rule(Allow, &["anonymous"], &[Consume], &["topic://news.>"]),
            rule(Allow, &["root"], &Action::ALL, &[]),
            rule(Allow, &["keeper"], &[Manage], &["queue://orders.>"]),
        ]);
        for (who, action, on, expected) in [
            ("alice", Connect, "server", true),
            ("anonymous", Connect, "server", true),
            ("mallory", Connect, "server", false),
            ("mallory", Send, "queue://orders.eu", false),
            ("alice", Send, "queue://orders.eu", true),
            ("alice", Send, "queue://orders", true),
            ("alice", Send, "queue://other", false),
            ("alice", Send, "topic://orders.eu", false),
            ("alice", Browse, "queue://orders.eu", false),
            ("alice", Send, "queue://orders.secret.alice", true),
            ("bob", Send, "queue://orders.secret.alice", false),
            ("carol", Send, "queue://orders.eu", false),
            // Patterns: refused as soon as one destination in them would be.
            ("alice", Consume, "queue://orders.eu.>", true),
            ("alice", Consume, "queue://orders.*.x", false),
            ("alice", Consume, "queue://orders.>", false),
            ("alice", Consume, "queue://orders.secret.*", false),
            ("alice", Create, "queue://orders.>", true),
            ("alice", Consume, "queue://>", false),
            ("root", Browse, "queue://>", true),
            ("root", Consume, "queue://>", false),
            ("anonymous", Consume, "topic://news.*", true),
            ("anonymous", Consume, "topic://*.sport", false),
            ("anonymous", Consume, "queue://news.sport", false),
            ("alice", Consume, "topic://news.sport", false),
            // Temporary destinations: creating is what is asked about.
            ("alice", Create, "temp-queue://x", true),
            ("anonymous", Create, "temp-queue://x", false),
            ("anonymous", Send, "temp-queue://x", true),
            // The server itself belongs to rules that name no destinations.
            ("root", Manage, "server", true),
            ("keeper", Manage, "server", false),
            ("keeper", Manage, "queue://orders.eu", true),
        ] {
            assert_eq!(allowed(&rules, who, action, on), expected, "{who} {action} {on}");
        }
    }

    #[test]
    fn denying_everything_in_one_place_does_not_deny_connecting() {
        let rules = Rules::new(vec![
            rule(Effect::Deny, &["*"], &Action::ALL, &["queue://secret"]),
            rule(Effect::Allow, &["alice"], &[Action::Connect, Action::Send], &["queue://orders"]),
            rule(Effect::Deny, &["*"], &Action::ALL, &[]),
        ]);
        assert!(allowed(&rules, "alice", Action::Connect, "server"));
        assert!(!allowed(&rules, "bob", Action::Connect, "server"));
        assert!(!allowed(&rules, "alice", Action::Manage, "server"));
    }

    #[test]
    fn a_user_called_anonymous_cannot_be_mistaken_for_one_without_a_name() {
        let rules = Rules::new(vec![rule(Effect::Allow, &["anonymous"], &[Action::Send], &[])]);
        let named = Principal::user("anonymous", Remote::Local);
        let queue = Destination::queue("q");
        assert!(!rules.allows(&named, Action::Send, Resource::Destination(queue.as_ref())));
    }
}
