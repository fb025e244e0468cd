//! Secrets in files of their own, named by variables and by `ringwave.toml`.

use super::*;

const ID_AND_KEY: [(&str, &str); 2] = [("REVERB_APP_ID", "1"), ("REVERB_APP_KEY", "k")];

fn files(toml: &str) -> Directory {
    Directory::with(&[("ringwave.toml", toml), ("a", "tops3cret-a\n"), ("b", "tops3cret-b")])
}

fn load_with(directory: &Directory, more: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let environment: Vec<_> = ID_AND_KEY.iter().chain(more).copied().collect();
    directory.load(&Flags::default(), &environment)
}

/// Whether the app of this id signs with this secret.
fn signs_with(config: &Config, id: &str, secret: &str) -> bool {
    let expected = crate::protocol::secret::Secret::new(secret).sign(&[b"x"]);
    config.apps.by_id(id).unwrap().rules.secret.sign(&[b"x"]) == expected
}

#[test]
fn a_variable_names_the_file_of_a_secret_and_the_strongest_source_counts() {
    let absolute = files("");
    let path = absolute.0.join("b");
    for (dotenv, environment, secret, source) in [
        ("", ("REVERB_APP_SECRET_FILE", "a"), "tops3cret-a", "_FILE of the environment"),
        ("", ("REVERB_APP_SECRET_FILE", path.to_str().unwrap()), "tops3cret-b", "_FILE of the"),
        ("REVERB_APP_SECRET_FILE=b", ("X", ""), "tops3cret-b", "_FILE in .env line 1"),
        (
            "REVERB_APP_SECRET=x",
            ("REVERB_APP_SECRET_FILE", "a"),
            "tops3cret-a",
            "_FILE of the environment",
        ),
        ("REVERB_APP_SECRET_FILE=b", ("REVERB_APP_SECRET", "s"), "s", "SECRET of the environment"),
    ] {
        let directory = files("");
        fs::write(directory.0.join(".env"), dotenv).unwrap();
        let config = load_with(&directory, &[environment]).unwrap();
        assert!(signs_with(&config, "1", secret), "{environment:?}");
        let line = resolved(&config, "apps[0].secret");
        assert_eq!(line.value, "[withheld]");
        assert!(line.source.to_string().contains(source), "{}", line.source);
        assert_eq!(config.notes, [""; 0]);
    }
}

#[test]
fn apps_their_further_keys_and_redis_take_secrets_from_files() {
    let toml = "[[apps]]\napp_id = \"2\"\nkey = \"k2\"\nsecret_file = \"a\"\n\
        keys = [{ key = \"old\", secret_file = \"b\" }]\n\
        [cluster]\nenabled = true\nredis_file = \"url\"\nsentinel_password_file = \"a\"\n";
    let directory = files(toml);
    fs::write(directory.0.join("url"), "redis://:tops3cret@redis.test:7000\n").unwrap();
    let environment = [("REVERB_APP_SECRET", "s"), ("RINGWAVE_CLUSTER_PASSWORD_FILE", "b")];
    let config = load_with(&directory, &environment).unwrap();
    assert!(signs_with(&config, "2", "tops3cret-a"));
    let pair = &config.apps.by_id("2").unwrap().rules.more_keys[0];
    let old = crate::protocol::secret::Secret::new("tops3cret-b");
    assert!(pair.key == "old" && pair.secret.sign(&[b"x"]) == old.sign(&[b"x"]));
    let shown: Vec<_> = ["apps[1].secret", "cluster.redis", "cluster.password"]
        .map(|key| resolved(&config, key))
        .map(|line| format!("{} {}", line.value, line.source))
        .into();
    assert_eq!(
        shown,
        [
            "[withheld] apps[0].secret_file in ringwave.toml",
            "redis://:[withheld]@redis.test:7000 cluster.redis_file in ringwave.toml",
            "[withheld] RINGWAVE_CLUSTER_PASSWORD_FILE of the environment",
        ]
    );
    assert!(!format!("{config:?}").contains("tops3cret"));
}

#[test]
fn credentials_of_systemd_are_found_where_it_has_put_them() {
    let credentials = files("");
    let toml = "[[apps]]\napp_id = \"2\"\nkey = \"k2\"\n\
        secret_file = \"$CREDENTIALS_DIRECTORY/a\"\n";
    let directory = Directory::with(&[("ringwave.toml", toml)]);
    let place = ("CREDENTIALS_DIRECTORY", credentials.0.to_str().unwrap());
    let own = ("REVERB_APP_SECRET_FILE", "${CREDENTIALS_DIRECTORY}/b");
    let config = load_with(&directory, &[place, own]).unwrap();
    assert!(signs_with(&config, "1", "tops3cret-b") && signs_with(&config, "2", "tops3cret-a"));
    assert_eq!(
        refused(load_with(&directory, &[("REVERB_APP_SECRET", "s")])),
        "$CREDENTIALS_DIRECTORY/a (from apps[0].secret_file in ringwave.toml) is a credential, and \
         the environment has no CREDENTIALS_DIRECTORY: add LoadCredential= to the unit of systemd, \
         or write the path of the file itself"
    );
}

#[test]
fn a_secret_is_given_once_in_each_source() {
    let both = [("REVERB_APP_SECRET", "tops3cret"), ("REVERB_APP_SECRET_FILE", "a")];
    assert_eq!(
        refused(load_with(&files(""), &both)),
        "REVERB_APP_SECRET of the environment and REVERB_APP_SECRET_FILE of the environment are \
         both set: keep the file, and remove the value"
    );
    let toml = "[[apps]]\napp_id = \"2\"\nkey = \"k2\"\nsecret = \"tops3cret\"\n\
        secret_file = \"a\"\n";
    assert_eq!(
        refused(load_with(&files(toml), &[("REVERB_APP_SECRET", "s")])),
        "apps[0].secret in ringwave.toml and apps[0].secret_file in ringwave.toml are both set: \
         keep the file, and remove the value"
    );
    let message = refused(load_with(&files("[app]\nsecret_file = \"a\"\n"), &[]));
    assert!(message.contains("app.secret_file belongs to one app"), "{message}");
}

#[test]
fn a_file_that_gives_no_secret_is_named_with_the_remedy() {
    let directory = files("");
    fs::write(directory.0.join("blank"), "\n").unwrap();
    fs::write(directory.0.join("long"), "tops3cret".repeat(1000)).unwrap();
    for (file, told) in [
        ("none", "does not exist: name a file that has the secret and nothing else in it"),
        ("blank", "is empty: write the secret into it"),
        ("long", "has more than 4096 bytes, so it is no secret: name a file"),
        (".", "is a directory, not a file"),
    ] {
        let message = refused(load_with(&directory, &[("REVERB_APP_SECRET_FILE", file)]));
        let expected = format!("{file} (from REVERB_APP_SECRET_FILE of the environment) {told}");
        assert!(message.starts_with(&expected), "{message}");
    }
}

#[test]
fn a_file_with_another_content_than_its_setting_takes_is_not_shown() {
    let toml = "[cluster]\nenabled = true\nredis_file = \"a\"\n";
    let directory = files(toml);
    fs::write(directory.0.join("a"), "tops3cret/:x\n").unwrap();
    let message = refused(load_with(&directory, &[("REVERB_APP_SECRET", "s")]));
    let expected = "cluster.redis cannot be [withheld] (cluster.redis_file in ringwave.toml): it";
    assert!(message.starts_with(expected), "{message}");
}

#[test]
fn a_setting_that_is_no_secret_has_no_file() {
    let message = refused(with_toml("[server]\nport_file = \"a\"\n", &APP));
    assert!(message.contains("there is no setting \"server.port_file\""), "{message}");
    let config = with_app(&[("REVERB_APP_KEY_FILE", "a")]).unwrap();
    let note = &config.notes[0];
    assert!(note.contains("REVERB_APP_KEY_FILE") && note.contains("no effect"), "{note}");
}
