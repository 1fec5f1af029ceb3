//! What management sees and changes.

use sabir_model::command::Open;
use sabir_model::ids::ConnectionId;
use sabir_model::settlement::Settlement;

use super::harness::{Setup, World};
use crate::manage::{ConnectionSort, Filter, Listing, QueueKind, QueueSort};

pub(super) fn listing<S>(limit: usize, sort: S) -> Listing<S> {
    Listing { filter: Filter::default(), after: None, limit, sort }
}

impl World {
    fn queue_names(&self, sort: QueueSort) -> Vec<String> {
        let page = self.broker.list_queues("/", &listing(100, sort)).unwrap();
        page.items.into_iter().map(|queue| queue.name).collect()
    }
}

#[test]
fn queues_are_listed_by_name_or_by_what_they_hold() {
    let world = World::new();
    let mut client = world.client();
    client.send_all("b", &["1", "2"]);
    client.send_all("a", &["1"]);
    client.subscribe("c").ok();
    assert_eq!(world.queue_names(QueueSort::Name), ["a", "b", "c"]);
    assert_eq!(world.queue_names(QueueSort::Ready), ["b", "a", "c"]);
    assert_eq!(world.queue_names(QueueSort::Consumers), ["c", "a", "b"]);
    assert_eq!(world.broker.list_queues("other", &listing(9, QueueSort::Name)).unwrap().total, 0);
    assert!(world.broker.list_queues("nowhere", &listing(9, QueueSort::Name)).is_err());
}

#[test]
fn every_kind_of_queue_is_listed_and_found_by_the_name_it_is_listed_under() {
    let world = World::new();
    let mut client = world.named("c1");
    client.send("plain", "x").ok();
    client.subscribe("topic://t").durable("d").ok();
    client.temporary(sabir_model::destination::Kind::Queue, "mine");
    client.subscribe("topic://live").ok();
    let page = world.broker.list_queues("/", &listing(10, QueueSort::Name)).unwrap();
    let kinds: Vec<_> = page.items.iter().map(|queue| queue.kind).collect();
    assert_eq!(kinds, [QueueKind::Durable, QueueKind::Queue, QueueKind::Temporary]);
    for entry in page.items {
        let detail = world.broker.queue_detail("/", &entry.name).unwrap();
        assert_eq!(detail.entry.name, entry.name);
        assert_eq!(detail.entry.stats, entry.stats);
    }
    assert!(world.broker.queue_detail("/", "durable://nobody:x").is_err());
    assert_eq!(world.broker.queue_detail("/", "durable://c1:d").unwrap().bindings, ["topic://t"]);
}

#[test]
fn a_queue_tells_its_age_its_deliveries_and_who_consumes_it() {
    let world = World::new();
    let mut client = world.client();
    client.send_all("q", &["1", "2"]);
    let sent = world.now().wall;
    world.pass(std::time::Duration::from_secs(5));
    client.send("q", "3").ok();
    let key = client.subscribe("q").credit(2).selector("a IS NULL").ok();
    let got = client.drain();
    client.settle(&got[0], Settlement::Failed);
    let detail = world.broker.queue_detail("/", "q").unwrap();
    let stats = &detail.entry.stats;
    assert_eq!((stats.ready, stats.unsettled), (1, 2));
    assert_eq!((stats.delivered, stats.redelivered), (3, 1));
    assert_eq!(stats.oldest, Some(sent));
    let [consumer] = detail.consumers.as_slice() else { panic!("{:?}", detail.consumers) };
    assert_eq!((consumer.subscription, consumer.credit, consumer.in_flight), (key, 2, 2));
    assert_eq!(consumer.selector.as_deref(), Some("a IS NULL"));
    client.subscribe("empty").ok();
    assert_eq!(world.broker.queue_detail("/", "empty").unwrap().entry.stats.oldest, None);
}

#[test]
fn pages_of_many_queues_add_up() {
    let world = World::new();
    let mut client = world.client();
    client.batch(|client| {
        for n in 0..257 {
            client.send(&format!("q.{n:03}"), "x").ok();
        }
    });
    for sort in [QueueSort::Name, QueueSort::Ready] {
        let mut listing = Listing { filter: Filter::new("Q.*1"), ..listing(10, sort) };
        let mut names = Vec::new();
        loop {
            let page = world.broker.list_queues("/", &listing).unwrap();
            names.extend(page.items.into_iter().map(|queue| queue.name));
            listing.after = page.next;
            if listing.after.is_none() {
                assert_eq!(page.total, names.len() as u64);
                break;
            }
        }
        let wanted: Vec<String> =
            (0..257).map(|n| format!("q.{n:03}")).filter(|name| name.contains('1')).collect();
        assert_eq!(names, wanted);
    }
}

#[test]
fn topics_are_those_that_are_subscribed_to_or_keep_a_value_each_once() {
    let world = World::new();
    let mut client = world.client();
    client.subscribe("topic://a").auto().ok();
    client.subscribe("topic://a").auto().ok();
    client.subscribe("topic://>").auto().ok();
    client.subscribe("Consumer.G.VirtualTopic.V").ok();
    client.subscribe("topic://VirtualTopic.V").auto().ok();
    world.broker.tell(&sabir_model::destination::Destination::topic("$SYS.x"), b"1").unwrap();
    client.send("topic://a", "last").retained().ok();
    client.send("topic://kept.b", "last").retained().ok();
    let page = world.broker.list_topics("/", &listing(10, ())).unwrap();
    let shown: Vec<_> = page
        .items
        .iter()
        .map(|topic| (topic.name.as_str(), topic.subscribers, topic.retained, topic.is_virtual))
        .collect();
    assert_eq!(
        shown,
        [("VirtualTopic.V", 3, false, true), ("a", 3, true, false), ("kept.b", 1, true, false)]
    );
    assert_eq!(page.total, 3);
    let detail = world.broker.topic_detail("/", "VirtualTopic.V").unwrap();
    assert_eq!(detail.queues, ["Consumer.G.VirtualTopic.V"]);
    assert_eq!(detail.connections.len(), 2);
}

#[test]
fn a_connection_tells_whose_it_is_and_what_it_does() {
    let world = World::new();
    let open = Open { client_id: Some("c1"), login: Some("alice"), ..Open::default() };
    let mut client = world.client_as(&open).unwrap();
    client.send_all("q", &["1", "2", "3"]);
    client.subscribe("q").credit(2).ok();
    client.subscribe("topic://t.*").auto().selector("x = 1").ok();
    client.subscribe("w.>").credit(7).ok();
    assert_eq!(client.drain().len(), 2);
    let id = client.host().id();
    let page = world.broker.list_connections("/", &listing(10, ConnectionSort::Age)).unwrap();
    let [entry] = page.items.as_slice() else { panic!("{page:?}") };
    assert_eq!(entry.id, id);
    assert_eq!((entry.user.as_deref(), entry.client_id.as_deref()), (Some("alice"), Some("c1")));
    assert_eq!((entry.published, entry.delivered, entry.unsettled, entry.subscriptions), (3, 2, 2, 3));
    assert_eq!((entry.peer.as_str(), entry.listener), ("test", "test"));
    let mut detail = world.broker.connection_detail(id).unwrap();
    detail.subscriptions.sort_by(|a, b| a.destination.cmp(&b.destination));
    let shown: Vec<_> = detail
        .subscriptions
        .iter()
        .map(|one| (one.destination.as_str(), one.selector.as_deref(), one.credit, one.in_flight))
        .collect();
    assert_eq!(
        shown,
        [
            ("queue://q", None, Some(2), 2),
            ("queue://w.>", None, Some(7), 0),
            ("topic://t.*", Some("x = 1"), None, 0),
        ]
    );
    let filter = Listing { filter: Filter::new("bob"), ..listing(10, ConnectionSort::Age) };
    assert_eq!(world.broker.list_connections("/", &filter).unwrap().total, 0);
    assert_eq!(world.broker.list_connections("other", &listing(9, ConnectionSort::Age)).unwrap().total, 0);
    client.close();
    assert!(world.broker.connection_detail(id).is_err());
    assert!(world.broker.connection_detail(ConnectionId(99)).is_err());
}

#[test]
fn an_operator_can_end_a_connection() {
    let world = World::new();
    let mut client = world.client();
    let id = client.host().id();
    world.broker.close_connection(id).unwrap();
    client.pump();
    let closing = client.events.iter().any(|event| matches!(event, sabir_model::event::Event::Closing(_)));
    assert!(closing, "{:?}", client.events);
    client.close();
    assert!(world.broker.close_connection(id).is_err());
}

#[test]
fn durable_subscriptions_are_listed_connected_or_not() {
    let world = World::new();
    let mut client = world.named("c1");
    let key = client.subscribe("topic://t").durable("news").selector("a = 1").ok();
    let state = |world: &World| {
        let page = world.broker.list_durables("/", &listing(10, ())).unwrap();
        let [entry] = page.items.as_slice() else { panic!("{page:?}") };
        assert_eq!((entry.client_id.as_str(), entry.name.as_str()), ("c1", "news"));
        assert_eq!(entry.selector.as_deref(), Some("a = 1"));
        assert_eq!(entry.queue, "durable://c1:news");
        (entry.connected, entry.ready)
    };
    assert_eq!(state(&world), (true, 0));
    client.unsubscribe(key);
    client.send("topic://t", "x").property("a", "1").ok();
    assert_eq!(state(&world), (false, 0), "a text is no number");
    let filter = Listing { filter: Filter::new("c1*news"), ..listing(10, ()) };
    assert_eq!(world.broker.list_durables("/", &filter).unwrap().total, 1);
}

#[test]
fn the_overview_counts_what_there_is() {
    let world = Setup::default().open();
    let mut client = world.client();
    client.send_all("q", &["1", "2", "3"]);
    client.subscribe("q").credit(1).ok();
    let overview = world.broker.overview();
    assert_eq!((overview.queues, overview.ready, overview.unsettled), (1, 2, 1));
    assert_eq!(overview.connections_by_protocol.values().sum::<u64>(), 1);
    let hosts: Vec<_> =
        world.broker.virtual_hosts().into_iter().map(|host| (host.name, host.queues)).collect();
    assert_eq!(hosts, [("/".to_owned(), 1), ("other".to_owned(), 0)]);
}
