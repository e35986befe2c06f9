//! Texts of Pika: what `INFO` answers, and the `info` file of a dump.

use crate::position::Position;

/// Which of Pika's protocols and layouts a server has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Before 2.3.3: `trysync`, and a stream that does not say whose it is.
    Oldest,
    /// From then on, before 3.1: `trysync`, and connections from the master.
    Legacy,
    /// 3.1 to 3.4: messages of protobuf; files come by rsync, over connections from the master.
    PbRsync,
    /// From 3.5 on: messages of protobuf, for files too.
    Pb,
}

/// What a server says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerInfo {
    /// `pika_version`, as it stands there.
    pub version: String,
    /// What that means.
    pub family: Family,
}

impl ServerInfo {
    /// Reads the answer to `INFO`; `None` if it names no version that can be read.
    pub fn parse(text: &str) -> Option<Self> {
        let version = text
            .lines()
            .find_map(|line| line.strip_prefix("pika_version:"))?
            .trim();
        Some(Self {
            version: version.to_owned(),
            family: family_of(version)?,
        })
    }
}

/// What a version means; `None` if it is none.
pub fn family_of(version: &str) -> Option<Family> {
    let mut numbers = version.split('.').map(str::parse::<u32>);
    let (major, minor) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    let patch = numbers.next().and_then(Result::ok).unwrap_or(0);
    Some(match (major, minor, patch) {
        (..2, ..) | (2, ..3, _) | (2, 3, ..3) => Family::Oldest,
        (2, ..) | (3, 0, _) => Family::Legacy,
        (3, 1..=4, _) => Family::PbRsync,
        _ => Family::Pb,
    })
}

/// Where the master's binlog of a database ends, from `INFO replication`: `db0:binlog_offset=1 1925,...`, with a space
/// instead of the colon in some versions.
pub fn binlog_end(text: &str, db: &str) -> Option<Position> {
    text.lines().find_map(|line| {
        let rest = line.strip_prefix(db)?.strip_prefix([':', ' '])?;
        two_numbers(rest.strip_prefix("binlog_offset=")?.split(',').next()?)
    })
}

/// Where the only binlog of a master before 3.1 ends, from `INFO log`: `binlog_offset:1 1925`.
pub fn legacy_binlog_end(text: &str) -> Option<Position> {
    text.lines()
        .find_map(|line| two_numbers(line.strip_prefix("binlog_offset:")?))
}

fn two_numbers(text: &str) -> Option<Position> {
    let mut numbers = text.trim().split(' ');
    let filenum = numbers.next()?.parse().ok()?;
    Some(Position::new(filenum, numbers.next()?.parse().ok()?))
}

/// What the `info` file of a dump says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpInfo {
    /// The master's address, as it knows it.
    pub host: String,
    /// Its Redis port.
    pub port: u16,
    /// The dump holds what lies before it; the binlog goes on here.
    pub position: Position,
}

impl DumpInfo {
    /// Reads the file; `None` if a line is missing or no number.
    pub fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().map(str::trim);
        // How long it took.
        lines.next()?;
        Some(Self {
            host: lines.next()?.to_owned(),
            port: lines.next()?.parse().ok()?,
            position: Position::new(lines.next()?.parse().ok()?, lines.next()?.parse().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_tell_the_family() {
        let family = |version: &str| {
            ServerInfo::parse(&format!("# Server\r\npika_version:{version}\r\nos:Linux\r\n"))
                .map(|info| info.family)
        };
        assert_eq!(family("2.2.6"), Some(Family::Oldest));
        assert_eq!(family("2.3.2"), Some(Family::Oldest));
        assert_eq!(family("2.3.6"), Some(Family::Legacy));
        assert_eq!(family("3.0.16"), Some(Family::Legacy));
        assert_eq!(family("3.4.1"), Some(Family::PbRsync));
        assert_eq!(family("3.5.5"), Some(Family::Pb));
        assert_eq!(family("4.0.0"), Some(Family::Pb));
        assert_eq!(family("new"), None);
    }

    #[test]
    fn the_end_of_a_binlog_is_found() {
        let text =
            "db0:binlog_offset=1 1925,safety_purge=none\r\ndb1 binlog_offset=0 879,safety_purge=none\r\n";
        assert_eq!(binlog_end(text, "db0"), Some(Position::new(1, 1925)));
        assert_eq!(binlog_end(text, "db1"), Some(Position::new(0, 879)));
        assert_eq!(binlog_end(text, "db"), None);
        let text = "# Log\r\nlog_size:9\r\nbinlog_offset:3 14254\r\n";
        assert_eq!(legacy_binlog_end(text), Some(Position::new(3, 14254)));
    }

    #[test]
    fn a_dump_tells_where_the_binlog_goes_on() {
        let info = DumpInfo::parse("3s\n127.0.0.1\n9221\n12\n34567\n").unwrap();
        assert_eq!((info.port, info.position), (9221, Position::new(12, 34567)));
        assert_eq!(DumpInfo::parse("3s\n127.0.0.1\n9221\n12\n"), None);
    }
}
