use crate::protocol::rules::KeyPair;
use crate::rate::Rate;
use crate::time::Nanos;

use super::*;

#[test]
fn apps_are_found_by_id_and_by_key() {
    let apps = Apps::new(vec![test_app(), test_app_named(1, "2", "other-key")]);
    assert_eq!(apps.by_id("2").map(|app| app.rules.key.as_str()), Some("other-key"));
    assert_eq!(apps.by_key("app-key").map(|app| app.id.as_str()), Some("app-id"));
    assert!(apps.by_id("app-key").is_none() && apps.by_key("2").is_none());
    assert_eq!(apps.get(AppIndex(1)).map(|app| app.id.as_str()), Some("2"));
    assert!(apps.get(AppIndex(2)).is_none());
    assert_eq!(apps.iter().count(), 2);
}

#[test]
fn the_quota_is_exact_and_places_come_back() {
    let app = App { max_connections: Some(2), ..test_app() };
    let first = Admission::take(&app);
    let second = Admission::take(&app);
    assert!(first.is_some() && second.is_some() && Admission::take(&app).is_none());
    drop(first);
    assert!(Admission::take(&app).is_some());
    drop(second);
    assert_eq!(app.counters.connections(), 0);
}

fn apps(list: &[(&str, &str)]) -> Apps {
    let named = (0..=u16::MAX).zip(list);
    Apps::new(named.map(|(index, (id, key))| test_app_named(index, id, key)).collect())
}

fn ids(apps: &Apps) -> Vec<(u16, &str)> {
    apps.iter().map(|app| (app.index.0, app.id.as_str())).collect()
}

#[test]
fn an_app_keeps_its_index_and_its_connections_whatever_is_configured_around_it() {
    let first = apps(&[("a", "ka"), ("b", "kb"), ("c", "kc")]);
    let place = Admission::take(first.by_id("c").unwrap()).unwrap();
    let once = Rate::of(1, 1);
    assert!(first.by_id("c").unwrap().counters.take_request(once, Nanos(0)).is_ok());

    let second = first.followed_by(&apps(&[("new", "kn"), ("c", "kc2")])).unwrap();
    assert_eq!(ids(&second), [(2, "c"), (3, "new")]);
    let c = second.by_id("c").unwrap();
    assert_eq!((c.rules.key.as_str(), c.counters.connections()), ("kc2", 1));
    assert!(c.counters.take_request(once, Nanos(0)).is_err(), "the request from before is counted");
    assert!(second.by_key("kc").is_none() && second.by_key("kc2").is_some());
    let quota = App { max_connections: Some(1), ..App::clone(c) };
    assert!(Admission::take(&quota).is_none(), "the connection from before is counted");

    let third = second.followed_by(&apps(&[("b", "kb"), ("a", "ka")])).unwrap();
    assert_eq!(ids(&third), [(4, "b"), (5, "a")]);
    assert_eq!(third.get(place.app()).map(|app| app.id.as_str()), Some("c"));
    drop(place);
    assert_eq!(third.get(AppIndex(2)).unwrap().counters.connections(), 0);
}

#[test]
fn a_removed_app_is_not_found_and_its_place_knows_that() {
    let after = apps(&[("a", "ka"), ("b", "kb")]).followed_by(&apps(&[("b", "kb")])).unwrap();
    assert!(after.by_id("a").is_none() && after.by_key("ka").is_none());
    assert_eq!(after.get(AppIndex(0)).map(|app| app.rules.standing), Some(Standing::Removed));
    assert!(after.by_id("b").is_some_and(|app| app.rules.is_enabled()));
    // A key may move to another app.
    let moved = after.followed_by(&apps(&[("b", "ka")])).unwrap();
    assert_eq!(moved.by_key("ka").map(|app| app.id.as_str()), Some("b"));
}

#[test]
fn of_a_removed_app_nothing_is_left_but_its_index_once_its_connections_are_gone() {
    let mut list = apps(&[("a", "ka")]);
    for number in 0..1000 {
        let name = format!("app-{number}");
        list = list.followed_by(&apps(&[("a", "ka"), (&name, &name)])).unwrap();
    }
    assert_eq!((list.list.len(), list.by_id.len(), list.by_key.len()), (1001, 2, 2));
    let nobody = list.get(AppIndex(1)).unwrap();
    assert!((1..1000).all(|index| Arc::ptr_eq(nobody, list.get(AppIndex(index)).unwrap())));
    assert!(list.by_id("").is_none() && list.by_key("").is_none());

    // While it has a connection it stays the same app.
    let place = Admission::take(list.by_id("app-999").unwrap()).unwrap();
    list = list.followed_by(&apps(&[("a", "ka")])).unwrap();
    let again = list.followed_by(&apps(&[("app-999", "k")])).unwrap();
    assert_eq!(again.by_id("app-999").unwrap().index, place.app());
    drop(place);
    list = list.followed_by(&apps(&[("a", "ka")])).unwrap();
    let again = list.followed_by(&apps(&[("app-999", "k")])).unwrap();
    assert_eq!(again.by_id("app-999").unwrap().index, AppIndex(1001));
}

#[test]
fn indices_do_not_come_to_an_end_in_silence() {
    let names: Vec<_> = (0..=u16::MAX).map(|n| n.to_string()).collect();
    let all: Vec<_> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
    let full = apps(&all);
    assert!(full.followed_by(&full).is_some());
    assert!(full.followed_by(&apps(&[("one more", "k")])).is_none());
}

#[test]
fn every_key_of_an_app_leads_to_it_and_has_its_own_secret() {
    let second = KeyPair { key: "old".into(), secret: Secret::new("old-secret") };
    let mut app = test_app();
    app.rules.more_keys.push(second);
    let apps = Apps::new(vec![app]);
    let app = apps.by_key("old").unwrap();
    assert!(Arc::ptr_eq(app, apps.by_key("app-key").unwrap()));
    let signed_by = |key| app.rules.secret_of(key).map(|secret| secret.sign(&[b"text"]));
    assert_eq!(signed_by("old"), Some(Secret::new("old-secret").sign(&[b"text"])));
    assert_eq!(signed_by("app-key"), Some(Secret::new("app-secret").sign(&[b"text"])));
    assert_eq!(signed_by("other"), None);
}
