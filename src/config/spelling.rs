//! Floor 7. The name that an operator probably meant.

/// The candidate that is most like a misspelt name, unless none is at all like it. `stem` takes off
/// the parts that are too common to count.
pub(super) fn nearest<'a>(
    name: &str,
    candidates: impl Iterator<Item = &'a str>,
    stem: fn(&str) -> &str,
) -> Option<&'a str> {
    let name = stem(name);
    let near = candidates.map(|known| (strsim::damerau_levenshtein(name, stem(known)), known));
    let (distance, known) = near.min_by_key(|&(distance, _)| distance)?;
    (distance <= name.len() / DISTANCE_SHARE).then_some(known)
}

/// A third of the characters may be wrong; past that, two names have nothing in common.
const DISTANCE_SHARE: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_named_and_a_foreign_one_is_not() {
        let known = ["server.port", "server.path", "app.key"];
        assert_eq!(nearest("server.prt", known.into_iter(), |name| name), Some("server.port"));
        assert_eq!(nearest("server.pat", known.into_iter(), |name| name), Some("server.path"));
        assert_eq!(nearest("zzz", known.into_iter(), |name| name), None);
    }
}
