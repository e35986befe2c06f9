//! Patterns of keys, as Redis has them: `*`, `?`, `[abc]`, `[^a-c]`, and `\` before a character that means itself.

/// Whether `text` matches `pattern`. Takes time of the order of both lengths' product at most.
pub(super) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where the last `*` stands, and from where on what follows it was tried last.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
            continue;
        }
        let Some(&byte) = text.get(t) else { break };
        if let Some(next) = one(pattern, p, byte) {
            (p, t) = (next, t + 1);
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            (p, t) = (at + 1, from + 1);
        } else {
            return false;
        }
    }
    pattern[p.min(pattern.len())..].iter().all(|byte| *byte == b'*')
}

/// Where the pattern goes on if what stands at `p` matches `byte`.
fn one(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    match *pattern.get(p)? {
        b'?' => Some(p + 1),
        b'[' => set(pattern, p + 1, byte),
        b'\\' => match pattern.get(p + 1) {
            Some(next) => (*next == byte).then_some(p + 2),
            None => (byte == b'\\').then_some(p + 1),
        },
        own => (own == byte).then_some(p + 1),
    }
}

/// As [`one`], behind an opening bracket. One that is never closed ends with the pattern.
fn set(pattern: &[u8], from: usize, byte: u8) -> Option<usize> {
    let is_negated = pattern.get(from) == Some(&b'^');
    let mut p = from + usize::from(is_negated);
    let mut is_in = false;
    loop {
        match (pattern.get(p), pattern.get(p + 1), pattern.get(p + 2)) {
            (None, ..) => break,
            (Some(b']'), ..) => {
                p += 1;
                break;
            }
            (Some(b'\\'), Some(own), _) => {
                is_in |= *own == byte;
                p += 2;
            }
            (Some(low), Some(b'-'), Some(high)) if *high != b']' => {
                let (low, high) = (low.min(high), low.max(high));
                is_in |= (*low..=*high).contains(&byte);
                p += 3;
            }
            (Some(own), ..) => {
                is_in |= *own == byte;
                p += 1;
            }
        }
    }
    (is_in != is_negated).then_some(p)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_are_those_of_redis() {
        for (pattern, text, wanted) in [
            ("*", "", true),
            ("user:*", "user:1", true),
            ("user:*", "order:1", false),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h[ae]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-c]llo", "hbllo", true),
            ("h[a-c]llo", "hdllo", false),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("*a*b*c", "xxaxxbxxc", true),
            ("*a*b*c", "xxaxxbxx", false),
            ("", "", true),
            ("", "x", false),
            ("[", "x", false),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                wanted,
                "{pattern} {text}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_pattern_ends(pattern: Vec<u8>, text: Vec<u8>) {
            matches(&pattern, &text);
            let escaped: Vec<u8> = text.iter().flat_map(|byte| [b'\\', *byte]).collect();
            prop_assert!(matches(&escaped, &text));
        }
    }
}
