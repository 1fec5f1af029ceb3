//! Routing rules: composite destinations, virtual topics and mirrored queues as data that the router reads.

use std::sync::Arc;

use sabir_model::destination::{Destination, Kind, LEVEL_SEPARATOR};
use sabir_model::error::Refusal;
use sabir_model::pattern::{Pattern, PatternLevel};
use sabir_model::selector::Selector;

/// One target of a composite destination.
#[derive(Clone, Debug)]
pub struct Forward {
    /// Where the copy goes; may itself be subject to rules.
    pub destination: Destination,
    /// Only messages this selector matches.
    pub selector: Option<Arc<Selector>>,
}

/// A destination that forwards what is sent to it (`compositeQueue`, `compositeTopic`).
#[derive(Clone, Debug)]
pub struct CompositeRule {
    /// What clients send to.
    pub name: Pattern,
    /// The targets, in order.
    pub forward_to: Vec<Forward>,
    /// Whether the named destination itself receives nothing.
    pub forward_only: bool,
    /// The named destination receives the message exactly if no filtered target matched; overrides `forward_only`.
    pub send_when_not_matched: bool,
}

/// Topics whose messages are copied to the queues of consumer groups.
#[derive(Clone, Debug)]
pub struct VirtualTopicRule {
    /// Which topics.
    pub name: Pattern,
    /// Levels before the topic's name in the queue's name; `*` stands for one level, the group. Dotted, ends with a dot.
    pub prefix: String,
    /// Levels after the topic's name. Dotted, starts with a dot unless empty.
    pub postfix: String,
    /// Only enqueue what some active consumer's selector matches.
    pub selector_aware: bool,
    /// Skip a full queue instead of refusing the send.
    pub drop_on_resource_limit: bool,
    /// Whether consumers see the queue as the destination and the topic as the original one.
    pub set_original_destination: bool,
}

impl Default for VirtualTopicRule {
    fn default() -> Self {
        Self {
            name: Pattern::from_dotted(Kind::Topic, false, "VirtualTopic.>")
                .expect("a literal pattern is valid"),
            prefix: "Consumer.*.".into(),
            postfix: String::new(),
            selector_aware: false,
            drop_on_resource_limit: false,
            set_original_destination: true,
        }
    }
}

impl VirtualTopicRule {
    fn prefix_levels(&self) -> impl DoubleEndedIterator<Item = &str> + Clone {
        self.prefix.strip_suffix('.').unwrap_or(&self.prefix).split('.').filter(|level| !level.is_empty())
    }

    fn postfix_levels(&self) -> impl DoubleEndedIterator<Item = &str> + Clone {
        self.postfix.strip_prefix('.').unwrap_or(&self.postfix).split('.').filter(|level| !level.is_empty())
    }

    /// The topic whose messages the queue of this canonical name collects, if it is a group's queue by this rule.
    #[must_use]
    pub fn topic_of(&self, queue: &str) -> Option<Destination> {
        let mut levels: Vec<&str> = queue.split(LEVEL_SEPARATOR).collect();
        for wanted in self.postfix_levels().rev() {
            if levels.pop()? != wanted {
                return None;
            }
        }
        let mut rest = levels.as_slice();
        for wanted in self.prefix_levels() {
            let (first, tail) = rest.split_first()?;
            if wanted != "*" && *first != wanted {
                return None;
            }
            rest = tail;
        }
        let topic = rest.join("\0");
        let topic = Destination::from_canonical(Kind::Topic, false, &topic).ok()?;
        self.name.matches(topic.as_ref()).then_some(topic)
    }

    /// The pattern of the queues that collect `topic`.
    ///
    /// # Errors
    /// If the rule's prefix or postfix make no name.
    pub fn queues_of(&self, topic: &Destination) -> Result<Pattern, Refusal> {
        Pattern::from_dotted(
            Kind::Queue,
            false,
            &format!("{}{}{}", self.prefix, topic.dotted(), self.postfix),
        )
    }

    /// The queue that a group declared by a wildcard subscription (`Consumer.A.VirtualTopic.>`) has for `topic`: the
    /// subscription must name the group literally.
    #[must_use]
    pub fn declared_queue(&self, subscription: &Pattern, topic: &Destination) -> Option<Destination> {
        let mut name: Vec<&str> = Vec::new();
        for (index, level) in self.prefix_levels().enumerate() {
            match (level, subscription.levels().nth(index)?) {
                ("*", PatternLevel::Literal(group)) => name.push(group),
                ("*", _) => return None,
                (literal, _) => name.push(literal),
            }
        }
        name.extend(topic.levels());
        name.extend(self.postfix_levels());
        let queue = Destination::from_canonical(Kind::Queue, false, &name.join("\0")).ok()?;
        subscription.matches(queue.as_ref()).then_some(queue)
    }
}

/// Every message sent to a queue is published on a topic first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirroredQueues {
    /// Put before the queue's dotted name to make the topic's.
    pub prefix: String,
    /// Put after it.
    pub postfix: String,
}

/// All routing rules of a broker.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Composite destinations.
    pub composites: Vec<CompositeRule>,
    /// Virtual topics.
    pub virtual_topics: Vec<VirtualTopicRule>,
    /// Mirrored queues, if on.
    pub mirrored_queues: Option<MirroredQueues>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            composites: Vec::new(),
            virtual_topics: vec![VirtualTopicRule::default()],
            mirrored_queues: None,
        }
    }
}

impl Rules {
    /// The virtual topic rule and topic behind a queue's canonical name, if it is a group's queue.
    #[must_use]
    pub fn group_queue(&self, queue: &str) -> Option<(&VirtualTopicRule, Destination)> {
        self.virtual_topics.iter().find_map(|rule| Some((rule, rule.topic_of(queue)?)))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn group_queues_are_recognised_and_named() {
        let rule = VirtualTopicRule::default();
        let queue = Destination::queue("Consumer.A.VirtualTopic.Orders.EU");
        let topic = Destination::topic("VirtualTopic.Orders.EU");
        assert_eq!(rule.topic_of(queue.canonical()), Some(topic.clone()));
        assert_eq!(rule.topic_of(Destination::queue("Consumer.VirtualTopic.Orders").canonical()), None);
        assert_eq!(rule.topic_of(Destination::queue("Consumer.A.B.VirtualTopic.X").canonical()), None);
        assert_eq!(rule.topic_of(Destination::queue("orders").canonical()), None);
        assert!(rule.queues_of(&topic).unwrap().matches(queue.as_ref()));
        let wild = Pattern::from_dotted(Kind::Queue, false, "Consumer.A.VirtualTopic.>").unwrap();
        assert_eq!(rule.declared_queue(&wild, &topic), Some(queue));
        let all = Pattern::from_dotted(Kind::Queue, false, "Consumer.*.VirtualTopic.>").unwrap();
        assert_eq!(rule.declared_queue(&all, &topic), None);
    }

    #[test]
    fn prefix_and_postfix_of_several_levels() {
        let rule = VirtualTopicRule {
            prefix: "G.*.in.".into(),
            postfix: ".q".into(),
            ..VirtualTopicRule::default()
        };
        let queue = Destination::queue("G.a.in.VirtualTopic.T.q");
        assert_eq!(rule.topic_of(queue.canonical()), Some(Destination::topic("VirtualTopic.T")));
        assert!(rule.queues_of(&Destination::topic("VirtualTopic.T")).unwrap().matches(queue.as_ref()));
    }
}
