//! The page about the chart's values, from the comments of its `values.yaml`.

use std::fmt::Write as _;

use crate::tree::root;

/// Where the values are.
const FILE: &str = "charts/takhin-operator/values.yaml";

const HEAD: &str = "\
# Values of the chart

Of `charts/takhin-operator`, for `--set VALUE=...` and `--values FILE` of `helm install`. Names and types are checked: one that is
misspelt is refused. Generated from the comments of `values.yaml` by `make generate`.

| value | default | meaning |
|---|---|---|
";

/// One value: its path, its default, and what is said of it.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    path: String,
    default: String,
    meaning: String,
}

/// Prints the page.
pub(crate) fn run() -> Result<String, Vec<String>> {
    let text =
        std::fs::read_to_string(root().join(FILE)).map_err(|error| vec![format!("{FILE}: {error}")])?;
    let mut page = HEAD.to_owned();
    for row in rows(&text)? {
        // Writing to a String cannot fail.
        let _ = writeln!(page, "| `{}` | `{}` | {} |", row.path, row.default, row.meaning);
    }
    Ok(page.trim_end().to_owned())
}

/// The values of the subset of YAML that the file is written in: keys, two spaces a level, comments above what they are about.
/// A value without a comment has that of what it is in.
fn rows(text: &str) -> Result<Vec<Row>, Vec<String>> {
    let (mut rows, mut faults) = (Vec::new(), Vec::new());
    // Names and comments of what the line is in.
    let mut above: Vec<(String, String)> = Vec::new();
    let mut comment: Vec<&str> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let content = line.trim_start();
        let depth = (line.len() - content.len()) / 2;
        if let Some(said) = content.strip_prefix('#') {
            comment.push(said.trim());
            continue;
        }
        let said = std::mem::take(&mut comment).join(" ");
        let Some((name, default)) = content.split_once(':') else {
            if !content.is_empty() {
                faults.push(format!(
                    "{FILE}:{}: neither a key nor a comment: {content}",
                    number + 1
                ));
            }
            continue;
        };
        above.truncate(depth);
        let inherited = || above.last().map(|(_, said)| said.clone()).unwrap_or_default();
        let meaning = if said.is_empty() { inherited() } else { said };
        let names = above.iter().map(|(name, _)| name.as_str()).chain([name]);
        let path = names.collect::<Vec<_>>().join(".");
        if default.trim().is_empty() {
            above.push((name.to_owned(), meaning));
        } else if meaning.is_empty() {
            faults.push(format!(
                "{FILE}:{}: say in a comment above what {path} is",
                number + 1
            ));
        } else {
            let default = default.trim().to_owned();
            rows.push(Row {
                path,
                default,
                meaning,
            });
        }
    }
    if faults.is_empty() { Ok(rows) } else { Err(faults) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(path: &str, default: &str, meaning: &str) -> Row {
        let [path, default, meaning] = [path, default, meaning].map(str::to_owned);
        Row {
            path,
            default,
            meaning,
        }
    }

    #[test]
    fn values_have_their_own_comment_or_that_of_what_they_are_in() {
        let text = "# How many.\n# At most ten.\ncount: 2\n\n# Where from.\nimage:\n  tag: \"\"\n  # Who.\n  name: x:y\nlast: {}\n";
        let wanted = [
            row("count", "2", "How many. At most ten."),
            row("image.tag", "\"\"", "Where from."),
            row("image.name", "x:y", "Who."),
        ];
        let last = "last: {}\n";
        assert_eq!(rows(text.strip_suffix(last).unwrap()).unwrap(), wanted);
        assert_eq!(
            rows(text).unwrap_err(),
            [format!("{FILE}:10: say in a comment above what last is")]
        );
        assert!(rows("- a\n").unwrap_err()[0].contains("neither"));
    }
}
