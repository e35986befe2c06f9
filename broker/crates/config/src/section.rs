//! How a struct of settings is described, read and printed: the trait, and the macro that writes the structs.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::kind::ConfigKind;
use crate::nearest::nearest;
use crate::scalar::Scalar;
use crate::tree::{Node, Origin};
use crate::units::ParseError;

/// A row of the table of all node settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Row {
    /// A group of settings, followed by its members.
    Section {
        /// Dotted path; elements of a list are written `[]`.
        path: String,
        /// What it is about.
        doc: String,
    },
    /// One setting.
    Setting(SettingDoc),
}

/// What is known about one node setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingDoc {
    /// Dotted path, as in `--set`; elements of a list are written `[]`.
    pub path: String,
    /// Type, in words.
    pub kind: String,
    /// Default as it would be written; `None` when there is none.
    pub default: Option<String>,
    /// Smallest and largest allowed value, both inclusive.
    pub range: Option<(String, String)>,
    /// The only allowed values.
    pub words: Option<&'static [&'static str]>,
    /// What it does.
    pub doc: String,
    /// Whether `takhin start` refuses to run without it.
    pub required: bool,
    /// Kafka's name and type of the same setting.
    pub kafka: Option<(&'static str, ConfigKind)>,
    /// Whether AlterConfigs changes it while the broker runs.
    pub dynamic: bool,
}

/// One value of a loaded configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// Dotted path with list positions as numbers.
    pub path: String,
    /// The value as it would be written.
    pub value: String,
    /// The value in Kafka's units.
    pub kafka_value: String,
}

/// One thing wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Dotted path of the setting; empty for a source as a whole.
    pub path: String,
    /// Where the value comes from.
    pub origin: Origin,
    /// What is wrong and what to do about it.
    pub message: String,
}

/// What a field's declaration says about it.
#[derive(Debug)]
pub(crate) struct Rules<T> {
    pub(crate) doc: &'static str,
    pub(crate) range: Option<RangeInclusive<T>>,
    pub(crate) required: Option<&'static str>,
    pub(crate) kafka: Option<(&'static str, ConfigKind)>,
    pub(crate) dynamic: bool,
}

impl<T> Rules<T> {
    pub(crate) fn new(doc: &'static str) -> Self {
        Self {
            doc,
            range: None,
            required: None,
            kafka: None,
            dynamic: false,
        }
    }
}

/// Collects what reading a tree finds out.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    pub(crate) faults: Vec<Fault>,
    pub(crate) origins: BTreeMap<String, Origin>,
}

impl Reader {
    pub(crate) fn fault(&mut self, path: &str, origin: &Origin, message: String) {
        self.faults.push(Fault {
            path: path.to_owned(),
            origin: origin.clone(),
            message,
        });
    }

    /// Whether a source gave the value at `path`.
    pub(crate) fn is_set(&self, path: &str) -> bool {
        self.origins
            .get(path)
            .is_some_and(|origin| *origin != Origin::Default)
    }

    pub(crate) fn absent(&mut self, path: &str, required: Option<&'static str>) {
        if let Some(why) = required {
            self.fault(path, &Origin::Default, format!("has no value: {why}"));
        }
        self.origins.insert(path.to_owned(), Origin::Default);
    }

    /// The children of a section; unknown ones are faults.
    pub(crate) fn children<'a>(
        &mut self,
        path: &str,
        node: Option<&'a Node>,
        known: &[&str],
    ) -> Option<&'a BTreeMap<String, Node>> {
        let children = match node? {
            Node::Map { children, .. } => children,
            other => {
                let message = format!("is a section with the settings {}", known.join(", "));
                self.fault(path, other.origin(), message);
                return None;
            }
        };
        for (key, child) in children.iter().filter(|(key, _)| !known.contains(&key.as_str())) {
            let at = join(path, key);
            let message = match nearest(key, known.iter().copied()) {
                Some(name) => format!("unknown setting {at}: did you mean {}?", join(path, name)),
                None => format!(
                    "unknown setting {at}: {} has {}",
                    section_name(path),
                    known.join(", ")
                ),
            };
            self.fault("", child.origin(), message);
        }
        Some(children)
    }
}

fn section_name(path: &str) -> &str {
    if path.is_empty() {
        "the configuration"
    } else {
        path
    }
}

/// Appends a name to a dotted path.
pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// Anything that can stand at a path of the configuration.
pub(crate) trait Setting: Sized {
    /// Appends the rows of the reference.
    fn describe(&self, path: &str, rules: &Rules<Self>, rows: &mut Vec<Row>);

    /// Reads `node`, or keeps `self`, the default, when it is absent or wrong; what is wrong goes to `reader`.
    fn read(self, path: &str, node: Option<&Node>, rules: &Rules<Self>, reader: &mut Reader) -> Self;

    /// Appends all values.
    fn effective(&self, path: &str, values: &mut Vec<Effective>);

    /// Sets the setting with this Kafka name, from text in Kafka's units; `None` if it is none that can be set so.
    fn assign(&mut self, _rules: &Rules<Self>, _name: &str, _text: &str) -> Option<Result<(), ParseError>> {
        None
    }
}

/// A setting of which there can be a list.
pub(crate) trait Element: Setting {
    /// Appends the rows for a list of these.
    fn describe_list(list: &[Self], path: &str, rules: &Rules<Vec<Self>>, rows: &mut Vec<Row>);

    /// Reads one element of a list; `None` when it is wrong.
    fn read_element(path: &str, node: &Node, reader: &mut Reader) -> Option<Self>;
}

/// Reads a single value; what is wrong with it goes to `reader`.
fn take<T: Scalar>(
    path: &str,
    node: &Node,
    range: Option<&RangeInclusive<T>>,
    reader: &mut Reader,
) -> Option<T> {
    let Node::Text { text, origin } = node else {
        reader.fault(
            path,
            node.origin(),
            format!("is one value of type {}, not a list or section", T::TYPE),
        );
        return None;
    };
    match T::parse(text) {
        Ok(value) => match range.filter(|range| !range.contains(&value)) {
            Some(range) => {
                let (low, high) = (range.start().show(), range.end().show());
                reader.fault(
                    path,
                    origin,
                    format!("is {}; allowed is {low} to {high}", value.show()),
                );
                None
            }
            None => {
                reader.origins.insert(path.to_owned(), origin.clone());
                Some(value)
            }
        },
        Err(error) => {
            let bounds = range.map(|range| format!(", {} to {}", range.start().show(), range.end().show()));
            reader.fault(
                path,
                origin,
                format!("is {text:?}; {error}{}", bounds.unwrap_or_default()),
            );
            None
        }
    }
}

fn row<T>(path: &str, kind: String, default: Option<String>, rules: &Rules<T>) -> SettingDoc {
    SettingDoc {
        path: path.to_owned(),
        kind,
        default,
        range: None,
        words: None,
        doc: rules.doc.trim().to_owned(),
        required: rules.required.is_some(),
        kafka: rules.kafka,
        dynamic: rules.dynamic,
    }
}

impl<T: Scalar> Setting for T {
    fn describe(&self, path: &str, rules: &Rules<Self>, rows: &mut Vec<Row>) {
        let default = rules.required.is_none().then(|| self.show());
        let range = rules
            .range
            .as_ref()
            .map(|range| (range.start().show(), range.end().show()));
        rows.push(Row::Setting(SettingDoc {
            range,
            words: T::WORDS,
            ..row(path, T::TYPE.to_owned(), default, rules)
        }));
    }

    fn read(self, path: &str, node: Option<&Node>, rules: &Rules<Self>, reader: &mut Reader) -> Self {
        match node {
            Some(node) => take(path, node, rules.range.as_ref(), reader).unwrap_or(self),
            None => {
                reader.absent(path, rules.required);
                self
            }
        }
    }

    fn effective(&self, path: &str, values: &mut Vec<Effective>) {
        values.push(Effective {
            path: path.to_owned(),
            value: self.show(),
            kafka_value: self.kafka(),
        });
    }

    fn assign(&mut self, rules: &Rules<Self>, name: &str, text: &str) -> Option<Result<(), ParseError>> {
        if !rules.dynamic || rules.kafka.is_none_or(|(kafka, _)| kafka != name) {
            return None;
        }
        Some(T::parse_kafka(text).and_then(|value| match &rules.range {
            Some(range) if !range.contains(&value) => {
                let (low, high) = (range.start().kafka(), range.end().kafka());
                Err(ParseError::expected(&format!("{low} to {high}")))
            }
            _ => {
                *self = value;
                Ok(())
            }
        }))
    }
}

impl<T: Scalar> Element for T {
    fn describe_list(list: &[Self], path: &str, rules: &Rules<Vec<Self>>, rows: &mut Vec<Row>) {
        let default = rules
            .required
            .is_none()
            .then(|| list.iter().map(Scalar::show).collect::<Vec<_>>().join(","));
        rows.push(Row::Setting(row(
            path,
            format!("list of {}", T::TYPE),
            default,
            rules,
        )));
    }

    fn read_element(path: &str, node: &Node, reader: &mut Reader) -> Option<Self> {
        take(path, node, None, reader)
    }
}

/// A scalar that may be left out.
impl<T: Scalar> Setting for Option<T> {
    fn describe(&self, path: &str, rules: &Rules<Self>, rows: &mut Vec<Row>) {
        rows.push(Row::Setting(row(
            path,
            T::TYPE.to_owned(),
            self.as_ref().map(Scalar::show),
            rules,
        )));
    }

    fn read(self, path: &str, node: Option<&Node>, rules: &Rules<Self>, reader: &mut Reader) -> Self {
        match node {
            Some(node) => take(path, node, None, reader).or(self),
            None => {
                reader.absent(path, rules.required);
                self
            }
        }
    }

    fn effective(&self, path: &str, values: &mut Vec<Effective>) {
        if let Some(value) = self {
            value.effective(path, values);
        }
    }
}

/// A list. A text stands for its elements with commas between them.
impl<T: Element> Setting for Vec<T> {
    fn describe(&self, path: &str, rules: &Rules<Self>, rows: &mut Vec<Row>) {
        T::describe_list(self, path, rules, rows);
    }

    fn read(self, path: &str, node: Option<&Node>, rules: &Rules<Self>, reader: &mut Reader) -> Self {
        let Some(node) = node else {
            reader.absent(path, rules.required);
            return self;
        };
        reader.origins.insert(path.to_owned(), node.origin().clone());
        let split;
        let items = match node {
            Node::List { items, .. } => items,
            Node::Text { text, origin } => {
                let texts = text.split(',').map(str::trim).filter(|text| !text.is_empty());
                split = texts
                    .map(|text| Node::Text {
                        text: text.to_owned(),
                        origin: origin.clone(),
                    })
                    .collect();
                &split
            }
            Node::Map { children, .. } if children.is_empty() => return Vec::new(),
            Node::Map { origin, .. } => {
                reader.fault(
                    path,
                    origin,
                    "is a list; begin each element with a dash".to_owned(),
                );
                return self;
            }
        };
        let read = |(index, item): (usize, &Node)| T::read_element(&format!("{path}.{index}"), item, reader);
        items.iter().enumerate().filter_map(read).collect()
    }

    fn effective(&self, path: &str, values: &mut Vec<Effective>) {
        for (index, item) in self.iter().enumerate() {
            item.effective(&format!("{path}.{index}"), values);
        }
    }
}

/// Declares a struct of settings: fields with doc, type and default, and where it applies the allowed range
/// (`in`), Kafka's name (`kafka`, and `dynamic` if AlterConfigs changes it while the broker runs), and why there can be no default (`required`).
macro_rules! section {
    (
        $(#[doc = $section_doc:literal])*
        $name:ident {
            $(
                $(#[doc = $doc:literal])*
                $field:ident : $ty:ty = $default:expr
                $(, in $range:expr)?
                $(, kafka $kind:ident $kafka:literal $($dynamic:ident)?)?
                $(, required $why:literal)?
                ;
            )*
        }
    ) => {
        $(#[doc = $section_doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $($(#[doc = $doc])* pub $field: $ty,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl $crate::section::Setting for $name {
            fn describe(
                &self,
                path: &str,
                _: &$crate::section::Rules<Self>,
                rows: &mut Vec<$crate::section::Row>,
            ) {
                use $crate::section::{Row, Setting, join};
                let doc = concat!($($section_doc, "\n"),*).trim().to_owned();
                rows.push(Row::Section { path: path.to_owned(), doc });
                $(
                    let rules = $crate::section::rules!($ty, $($doc)* $(, in $range)? $(, kafka $kind $kafka $($dynamic)?)? $(, required $why)?);
                    Setting::describe(&self.$field, &join(path, stringify!($field)), &rules, rows);
                )*
            }

            fn read(
                self,
                path: &str,
                node: Option<&$crate::tree::Node>,
                _: &$crate::section::Rules<Self>,
                reader: &mut $crate::section::Reader,
            ) -> Self {
                use $crate::section::{Setting, join};
                let children = reader.children(path, node, &[$(stringify!($field)),*]);
                $(
                    let rules = $crate::section::rules!($ty, $($doc)* $(, in $range)? $(, kafka $kind $kafka $($dynamic)?)? $(, required $why)?);
                    let child = children.and_then(|children| children.get(stringify!($field)));
                    let $field = Setting::read(self.$field, &join(path, stringify!($field)), child, &rules, reader);
                )*
                Self { $($field,)* }
            }

            fn effective(&self, path: &str, values: &mut Vec<$crate::section::Effective>) {
                use $crate::section::{Setting, join};
                $(Setting::effective(&self.$field, &join(path, stringify!($field)), values);)*
            }

            fn assign(
                &mut self,
                _: &$crate::section::Rules<Self>,
                name: &str,
                text: &str,
            ) -> Option<Result<(), $crate::units::ParseError>> {
                $(
                    let rules = $crate::section::rules!($ty, $($doc)* $(, in $range)? $(, kafka $kind $kafka $($dynamic)?)? $(, required $why)?);
                    let done = $crate::section::Setting::assign(&mut self.$field, &rules, name, text);
                    if done.is_some() {
                        return done;
                    }
                )*
                None
            }
        }

        impl $crate::section::Element for $name {
            fn describe_list(
                list: &[Self],
                path: &str,
                rules: &$crate::section::Rules<Vec<Self>>,
                rows: &mut Vec<$crate::section::Row>,
            ) {
                let element = list.first().cloned().unwrap_or_default();
                $crate::section::Setting::describe(&element, &format!("{path}[]"), &$crate::section::Rules::new(rules.doc), rows);
            }

            fn read_element(
                path: &str,
                node: &$crate::tree::Node,
                reader: &mut $crate::section::Reader,
            ) -> Option<Self> {
                use $crate::section::{Rules, Setting};
                Some(Self::default().read(path, Some(node), &Rules::new(""), reader))
            }
        }
    };
}
pub(crate) use section;

/// The [`Rules`] of one field, from its declaration in [`section!`].
macro_rules! rules {
    ($ty:ty, $($doc:literal)* $(, in $range:expr)? $(, kafka $kind:ident $kafka:literal $($dynamic:ident)?)? $(, required $why:literal)?) => {{
        #[allow(unused_mut)]
        let mut rules = $crate::section::Rules::<$ty>::new(concat!($($doc, "\n"),*));
        $(rules.range = Some($range);)?
        $(
            rules.kafka = Some(($kafka, $crate::kind::ConfigKind::$kind));
            $(rules.$dynamic = true;)?
        )?
        $(rules.required = Some($why);)?
        rules
    }};
}
pub(crate) use rules;
