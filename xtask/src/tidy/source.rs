//! Just enough of a Rust lexer: blanks out what is not code, so that braces and words can be looked for.

/// `source` with comments, strings and character literals replaced by spaces; line breaks stay.
pub(super) fn code_of(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while at < chars.len() {
        let end = token_end(&chars, at);
        let keep = end == at + 1;
        for c in &chars[at..end] {
            out.push(if keep || *c == '\n' { *c } else { ' ' });
        }
        at = end;
    }
    out
}

/// End of the comment or literal that begins at `at`, or `at + 1` for code.
fn token_end(chars: &[char], at: usize) -> usize {
    let rest = &chars[at..];
    let length = match rest {
        ['/', '/', ..] => rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
        ['/', '*', ..] => block_comment(rest),
        ['"', ..] => string(rest),
        ['r', '"' | '#', ..] if !word_before(chars, at) => raw_string(rest),
        // A lifetime has no closing quote; a literal has one after one character or an escape.
        ['\'', '\\', ..] => {
            2 + rest[2..]
                .iter()
                .skip(1)
                .position(|c| *c == '\'')
                .map_or(0, |n| n + 2)
        }
        ['\'', _, '\'', ..] => 3,
        _ => 1,
    };
    (at + length.max(1)).min(chars.len())
}

fn word_before(chars: &[char], at: usize) -> bool {
    // `br"..."` is a raw string as well.
    at > 0 && (chars[at - 1].is_alphanumeric() && chars[at - 1] != 'b' || chars[at - 1] == '_')
}

fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < rest.len() {
        match rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] if depth == 1 => return at + 2,
            ['*', '/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    rest.len()
}

fn string(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn raw_string(rest: &[char]) -> usize {
    let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
    if rest.get(1 + hashes) != Some(&'"') {
        return 1;
    }
    let open = 2 + hashes;
    let closes = |at: usize| {
        rest[at] == '"' && rest[at + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes
    };
    (open..rest.len())
        .find(|at| closes(*at))
        .map_or(rest.len(), |at| at + 1 + hashes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_is_left() {
        let source = "a{'}'} // }\n\"}\\\"}\" r#\"}\"}\"# /* } /* } */ } */ fn<'a>() b'\\'' '\\u{7d}' z";
        let code = code_of(source);
        assert_eq!(code.chars().count(), source.chars().count());
        assert_eq!(code.chars().filter(|c| *c == '}').count(), 1);
        assert_eq!(
            code.split_whitespace().collect::<Vec<_>>(),
            ["a{", "}", "fn<'a>()", "b", "z"]
        );
    }
}
