//! Regular expressions over topic names.
//!
//! The syntax is RE2's, as in Kafka (KIP-848), and runs in linear time. A name has to match as a whole.

use std::collections::BTreeSet;

use ::regex::{Regex, RegexBuilder};

use super::{Consumer, Member};
use crate::group::Effects;
use crate::records::{ConsumerRecord, ResolvedRegex};
use crate::topics::Topics;

/// Bytes of a compiled expression. One that needs more is invalid; Kafka's may take what it likes.
const COMPILED_LIMIT: usize = 4 << 20;
/// Bytes of an expression; keys of records have strings no longer than that.
const LENGTH_LIMIT: usize = 0x7fff;

/// Compiles an expression to match whole names.
///
/// # Errors
///
/// What is wrong with it, in words for its author.
pub(super) fn compile(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > LENGTH_LIMIT {
        return Err(format!("it is longer than {LENGTH_LIMIT} bytes"));
    }
    let pattern = unquote(pattern);
    let build = |pattern: &str| {
        RegexBuilder::new(pattern)
            .size_limit(COMPILED_LIMIT)
            .dfa_size_limit(COMPILED_LIMIT)
            .build()
            .map_err(|e| e.to_string())
    };
    // By itself too: `a)|(b` becomes valid when it stands in a group.
    build(&pattern)?;
    build(&format!(r"\A(?:{pattern})\z"))
}

/// RE2 has `\Q…\E` for literal text, which Java's `Pattern.quote` makes; the library does not.
fn unquote(pattern: &str) -> String {
    let mut out = String::new();
    let mut rest = pattern;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        if let Some(literal) = escape.strip_prefix(r"\Q") {
            let (literal, after) = literal.split_once(r"\E").unwrap_or((literal, ""));
            out.push_str(&::regex::escape(literal));
            rest = after;
        } else {
            // An escape with what it escapes, or `\\Q` would be taken for a quote.
            let len = escape.chars().take(2).map(char::len_utf8).sum();
            let (escape, after) = escape.split_at(len);
            out.push_str(escape);
            rest = after;
        }
    }
    out + rest
}

fn resolve(pattern: &str, topics: &dyn Topics) -> BTreeSet<String> {
    // Expressions were checked when they came; one that a newer broker took, and we cannot, matches nothing.
    let Ok(regex) = compile(pattern) else {
        return BTreeSet::new();
    };
    topics
        .names()
        .filter(|name| regex.is_match(name))
        .map(str::to_owned)
        .collect()
}

impl Consumer {
    /// Resolves what is new, everything if the topics have changed, and forgets what nobody uses.
    pub(super) fn refresh_regexes(&mut self, effects: &mut Effects<'_>, topics: &dyn Topics) {
        let used: BTreeSet<String> = self
            .members
            .values()
            .filter_map(Member::regex)
            .map(str::to_owned)
            .collect();
        let stale = self.checked != Some(topics.version());
        for regex in &used {
            let known = self.regexes.get(regex);
            if known.is_some() && !stale {
                continue;
            }
            let matching = resolve(regex, topics);
            if known.is_some_and(|known| known.topics == matching) {
                continue;
            }
            let value = Some(ResolvedRegex {
                topics: matching,
                version: i64::try_from(topics.version()).unwrap_or(i64::MAX),
                timestamp: effects.now.wall_ms,
            });
            self.write_regex(effects, regex, value);
        }
        self.drop_regexes(effects, &used);
    }

    /// Forgets the expressions that no member uses.
    pub(super) fn drop_unused_regexes(&mut self, effects: &mut Effects<'_>) {
        let used: BTreeSet<String> = self
            .members
            .values()
            .filter_map(Member::regex)
            .map(str::to_owned)
            .collect();
        self.drop_regexes(effects, &used);
    }

    fn drop_regexes(&mut self, effects: &mut Effects<'_>, used: &BTreeSet<String>) {
        let unused: Vec<String> = self
            .regexes
            .keys()
            .filter(|regex| !used.contains(*regex))
            .cloned()
            .collect();
        for regex in unused {
            self.write_regex(effects, &regex, None);
        }
    }

    fn write_regex(&mut self, effects: &mut Effects<'_>, regex: &str, value: Option<ResolvedRegex>) {
        let record = ConsumerRecord::Regex {
            group_id: self.key(),
            regex: regex.to_owned(),
            value,
        };
        self.write(effects, record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_names_match() {
        let matches = |pattern, name| compile(pattern).unwrap().is_match(name);
        assert!(matches("foo|foobar", "foobar"));
        assert!(!matches("foo", "foobar"));
        assert!(!matches("bar", "foobar"));
        assert!(matches("(?i)FOO.*", "foobar"));
        assert!(matches(r"\d{2}[[:alpha:]]", "42a"));
        assert!(matches(r"a\Q.+\E.", "a.+b"));
        assert!(!matches(r"\Qa.b\E", "axb"));
        assert!(matches(r"a\\Q", r"a\Q"));
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for pattern in ["(", "a)|(b", "*", "[a", r"(a)\1", "(?=a)", "a{1000}{1000}", "\\"] {
            assert!(compile(pattern).is_err(), "{pattern}");
        }
        assert!(compile(&"a".repeat(LENGTH_LIMIT + 1)).is_err());
    }
}
