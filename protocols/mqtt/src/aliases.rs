//! Topic aliases of a client's PUBLISH packets [5: 3.3.2-7 to 3.3.2-12]: per connection, never kept.

use crate::packet::Publish;
use crate::reason::Reason;
use crate::refusal::Breach;

/// Topics by alias.
#[derive(Debug, Default)]
pub(crate) struct Aliases {
    /// The alias is the place, counted from 1.
    topics: Vec<Option<Box<str>>>,
}

impl Aliases {
    /// The topic that a PUBLISH goes to.
    ///
    /// # Errors
    /// The alias is out of bounds, or stands for nothing.
    pub(crate) fn resolve<'a>(&'a mut self, publish: &Publish<'a>, max: u16) -> Result<&'a str, Breach> {
        let Some(alias) = publish.alias else { return Ok(publish.topic) };
        if alias == 0 || alias > max {
            return Err(Breach::new(Reason::TopicAliasInvalid, "the topic alias is 0 or above the maximum"));
        }
        let place = usize::from(alias) - 1;
        if publish.topic.is_empty() {
            let topic = self.topics.get(place).and_then(Option::as_deref);
            return topic.ok_or_else(|| Breach::protocol("the topic alias stands for nothing"));
        }
        if self.topics.len() <= place {
            self.topics.resize(place + 1, None);
        }
        if let Some(topic) = self.topics.get_mut(place)
            && topic.as_deref() != Some(publish.topic)
        {
            *topic = Some(publish.topic.into());
        }
        Ok(publish.topic)
    }
}
