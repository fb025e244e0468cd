use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> DotEnv {
    DotEnv::parse(text.as_bytes(), |name| (name == "OUTER").then(|| "from outside".into())).unwrap()
}

fn value(text: &str) -> String {
    parse(&format!("KEY={text}\n")).variable("KEY").unwrap().value.clone()
}

fn malformed(text: &str) -> DotEnvError {
    DotEnv::parse(text.as_bytes(), |_| None).err().unwrap()
}

#[test]
fn a_laravel_file_with_quotes_and_references_reads_as_in_laravel() {
    let file = "APP_NAME=Laravel\n\n# Broadcasting\nBROADCAST_CONNECTION=reverb\n\n\
        REVERB_APP_ID=123456\nREVERB_APP_KEY=abcdefghij0123456789\n\
        REVERB_APP_SECRET=zyxwvutsrq9876543210\nREVERB_HOST=\"localhost\"\n\
        REVERB_PORT=8081\nREVERB_SCHEME=http\n\n\
        VITE_REVERB_APP_KEY=\"${REVERB_APP_KEY}\"\nVITE_REVERB_HOST=\"${REVERB_HOST}\"\n\
        VITE_REVERB_PORT=\"${REVERB_PORT}\"\nVITE_REVERB_SCHEME=\"${REVERB_SCHEME}\"\n";
    let env = parse(file);
    for (name, expected, line) in [
        ("REVERB_APP_ID", "123456", 6),
        ("REVERB_HOST", "localhost", 9),
        ("VITE_REVERB_APP_KEY", "abcdefghij0123456789", 13),
        ("VITE_REVERB_HOST", "localhost", 14),
        ("VITE_REVERB_PORT", "8081", 15),
        ("VITE_REVERB_SCHEME", "http", 16),
    ] {
        let variable = env.variable(name).unwrap();
        assert_eq!((variable.value.as_str(), variable.line), (expected, line), "{name}");
    }
}

#[test]
fn quotes_escapes_and_comments_are_those_of_phpdotenv() {
    for (text, expected) in [
        ("", ""),
        ("   ", ""),
        ("plain", "plain"),
        ("  plain  ", "plain"),
        ("a # comment", "a"),
        ("a#comment", "a"),
        ("# comment", ""),
        ("'single $X ${OUTER} \\n #'", "single $X ${OUTER} \\n #"),
        ("'a' # comment", "a"),
        (r#""a \"b\" \\ \$ \n\t" # comment"#, "a \"b\" \\ $ \n\t"),
        (r#""$OUTER ${OUTER} ${NOBODY} \${OUTER}""#, "$OUTER from outside ${NOBODY} ${OUTER}"),
        ("${OUTER}/x", "from outside/x"),
        ("back\\slash", "back\\slash"),
        ("a\"b\"", "a\"b\""),
        ("base64:abc=", "base64:abc="),
        ("\"\"", ""),
    ] {
        assert_eq!(value(text), expected, "{text}");
    }
}

#[test]
fn names_may_be_exported_quoted_and_spaced() {
    let env = parse("export AB=1\n'B' = 2\n\"C.D\"\t=\t3\r\nE=5\rF=6");
    for (name, expected) in [("AB", "1"), ("B", "2"), ("C.D", "3"), ("E", "5"), ("F", "6")] {
        assert_eq!(env.variable(name).unwrap().value, expected, "{name}");
    }
}

#[test]
fn a_later_line_wins_and_a_bare_name_takes_the_variable_away() {
    let env = parse("\u{feff}A=1\nB=${A}\nA=2\nC=3\nC\n");
    assert_eq!(env.variable("A").unwrap().value, "2");
    assert_eq!(env.variable("B").unwrap().value, "1");
    assert!(env.variable("C").is_none());
}

#[test]
fn the_process_environment_comes_first_in_references() {
    assert_eq!(parse("OUTER=file\nKEY=${OUTER}").variable("KEY").unwrap().value, "from outside");
}

#[test]
fn a_double_quoted_value_may_span_lines() {
    let env = parse("A=\"one\n# two\nthree\"\nB=1\nC=\"x\n\"\nD=2");
    assert_eq!(env.variable("A").unwrap().value, "one\n# two\nthree");
    assert_eq!(env.variable("C").unwrap().value, "x\n");
    assert_eq!(env.variable("D").unwrap().line, 7);
}

#[test]
fn what_laravel_refuses_is_refused_with_the_line_and_without_the_value() {
    for (text, line) in [
        ("A=1\nKEY=tops3cret word", 2),
        ("KEY=\"tops3cret\nB=\"x\"", 1),
        ("KEY='tops3cret", 1),
        ("KEY=\"tops3cret\\q\"", 1),
        ("KEY=\"tops3cret\" tail", 1),
        ("=tops3cret", 1),
        ("tops3cret word", 1),
        ("A-B=tops3cret", 1),
        ("export A=tops3cret", 1),
        ("A=1\nA ", 2),
    ] {
        let malformed = malformed(text);
        assert_eq!(malformed.line, line, "{text}");
        assert!(!malformed.to_string().contains("tops3cret"), "{malformed}");
    }
    assert_eq!(
        malformed("KEY=a b").to_string(),
        "the value of KEY has text behind its end (a value with spaces needs quotes)"
    );
}

/// The rules of phpdotenv 5.6.4, each with the values of the real one (`null` for none).
#[test]
fn files_read_as_in_phpdotenv() {
    for (file, expected) in [
        // A line inside of an open value is never also a start.
        (
            "K=\"-----BEGIN KEY-----\nMIIEow==\nQ5w=\"\nB=1",
            &[("K", Some("-----BEGIN KEY-----\nMIIEow==\nQ5w=")), ("B", Some("1"))][..],
        ),
        ("K=\"a\nB=\"\nC=1", &[("K", Some("a\nB=")), ("B", None), ("C", Some("1"))]),
        // Without a closing quote the rest of the file is dropped, silently there.
        ("A=1\nK=\"a\nB=2\nC=3", &[("A", Some("1")), ("K", None), ("B", None), ("C", None)]),
        // A comment opens a value as well.
        ("# K=\"a\nB=2\n\"\nC=3", &[("B", None), ("C", Some("3"))]),
        ("# it's fine\nA=1", &[("A", Some("1"))]),
        // A double quote at the start of a line closes only when it is alone there.
        ("K=\"a\n\"\nB=1", &[("K", Some("a\n")), ("B", Some("1"))]),
        ("K=\"a\n\" # note\nB=\"1\"", &[("K", Some("a\n")), ("B", None)]),
        ("K=\"a\\\"b\nc\"\nB=1", &[("K", Some("a\"b\nc")), ("B", Some("1"))]),
        ("K=\"a\\\\\"\nB=1", &[("K", Some("a\\")), ("B", Some("1"))]),
        ("A =\"a\nb\"", &[("A", Some("a\nb"))]),
        // White space: what PHP's `trim` takes, and a form feed, which it does not.
        ("\0A\x0B=\t1 \0", &[("A", Some("1"))]),
        ("A=\x0C b", &[("A", Some("\x0C b"))]),
        ("A=a\x0C", &[("A", Some("a"))]),
        // References are of ASCII and have no defaults.
        ("X=1\nA=${X}${X:-2}${Y}", &[("A", Some("1${X:-2}${Y}"))]),
        ("X=Y\nY=2\nXY=3\nA=${X${X}}", &[("A", Some("3"))]),
        ("É=1\nA=${É}", &[("A", Some("${É}"))]),
        ("X=1\nA=\"\\${X}\"", &[("A", Some("${X}"))]),
        ("X='${X}'\nA=${X}", &[("A", Some("${X}"))]),
        ("A=$X\n", &[("A", Some("$X"))]),
        // Names.
        ("export AB=1\nexport  C.D = 2", &[("AB", Some("1")), ("C.D", Some("2"))]),
        ("AB=1\nexport AB", &[("AB", None)]),
        ("\"A\"=1\n'B'=2", &[("A", Some("1")), ("B", Some("2"))]),
        ("A=1\r\nB=2\rC=3\n", &[("A", Some("1")), ("B", Some("2")), ("C", Some("3"))]),
    ] {
        let env = parse(file);
        for &(name, value) in expected {
            let read = env.variable(name).map(|variable| variable.value.as_str());
            assert_eq!(read, value, "{name} of {file:?}");
        }
    }
}

#[test]
fn bytes_that_are_not_utf8_become_question_marks() {
    let parse = |bytes: &[u8]| DotEnv::parse(bytes, |_| None).unwrap();
    let env =
        parse(b"\xEF\xBB\xBFA=caf\xE9 # \xFF\nB=\"\xE2\x82\"\nC=\xF0\x9F\x98\x80\nD=\xC0\x80");
    for (name, value) in [("A", "caf?"), ("B", "?"), ("C", "\u{1F600}"), ("D", "??")] {
        assert_eq!(env.variable(name).unwrap().value, value, "{name}");
    }
    assert!(DotEnv::parse(b"A\xFF=1", |_| None).is_err());
}

#[test]
fn a_quote_that_never_closes_drops_the_rest_and_its_line_is_known() {
    let env = parse("A=1\n\nKEY=\"tops3cret\nB=2");
    assert_eq!(env.unclosed(), Some(3));
    assert!(env.variable("A").is_some() && env.variable("KEY").is_none());
    assert_eq!(parse("A=\"1\"").unclosed(), None);
}

#[test]
fn a_reference_that_stays_is_known_without_its_default() {
    for (value, literal) in [
        ("${PORT:-8080}", Some("${PORT:-...}")),
        ("\"a ${X-tops3cret} b\"", Some("${X-...}")),
        ("${X:?tops3cret}", Some("${X:?...}")),
        ("${NOBODY}", Some("${NOBODY}")),
        ("${NOBODY}${OUTER}", Some("${NOBODY}")),
        ("${OUTER}", None),
        ("'${NOBODY}'", None),
        ("\"\\${NOBODY}\"", None),
        ("$NOBODY", None),
        ("${", None),
        ("${}", None),
        ("\"${ X }\"", None),
    ] {
        let env = parse(&format!("KEY={value}"));
        assert_eq!(env.variable("KEY").unwrap().literal.as_deref(), literal, "{value}");
    }
}

#[test]
fn the_words_of_env_become_values_and_other_text_stays_text() {
    let text = |text: &str| Some(RawValue::Text(text.into()));
    for (word, expected) in [
        ("true", Some(RawValue::Bool(true))),
        ("(TRUE)", Some(RawValue::Bool(true))),
        ("False", Some(RawValue::Bool(false))),
        ("null", None),
        ("(Null)", None),
        ("empty", None),
        ("", None),
        ("1", text("1")),
        ("off", text("off")),
        ("'quoted'", text("quoted")),
        ("\"", text("\"")),
    ] {
        assert!(env_value(word) == expected, "{word}");
    }
}

fn double_quoted(value: &str) -> String {
    let mut quoted = String::from("\"");
    for c in value.chars() {
        match c {
            '"' | '\\' | '$' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            _ => quoted.push(c),
        }
    }
    quoted + "\""
}

proptest! {
    #[test]
    fn any_map_written_in_double_quotes_reads_back_the_same(
        map in proptest::collection::btree_map("[A-Z][A-Z0-9_]{0,8}", any::<String>(), 0..8)
    ) {
        let file: String =
            map.iter().map(|(k, v)| format!("{k}={} # note\n", double_quoted(v))).collect();
        let env = DotEnv::parse(file.as_bytes(), |_| None).unwrap();
        let read: BTreeMap<_, _> =
            env.variables.into_iter().map(|(k, v)| (k, v.value)).collect();
        prop_assert_eq!(read, map);
    }

    #[test]
    fn no_text_whatever_makes_the_reader_panic(text in "(\\PC|[\"'=#$\\{\\}\\\\\n\r]){0,80}") {
        let _ = DotEnv::parse(text.as_bytes(), |_| None);
    }
}
