//! Makes bodies from a schema.

use super::super::shape::{Api, Kind, Shape};

/// Makes bodies from a schema, with everything that may be there being there often.
pub(super) struct Generator {
    state: u64,
    version: i16,
    flexible: bool,
    out: Vec<u8>,
    /// How many fields so far could be null on the wire, whatever the schema says.
    nulls: usize,
    /// Which of them is made null.
    force: Option<usize>,
    /// The forced field's `null_from`.
    forced: Option<i16>,
}

impl Generator {
    fn new(api: &Api, version: i16, seed: u64) -> Self {
        Self {
            state: seed,
            version,
            flexible: version >= api.flexible,
            out: Vec::new(),
            nulls: 0,
            force: None,
            forced: None,
        }
    }

    pub(super) fn body(api: &Api, version: i16, seed: u64) -> Vec<u8> {
        let mut generator = Self::new(api, version, seed);
        generator.shape(api.body);
        generator.out
    }

    /// A body in which the `nth` field that can be null on the wire is null, whether the schema lets it or not,
    /// and that field's `null_from`. `None` when the body has fewer.
    pub(super) fn body_with_null(api: &Api, version: i16, seed: u64, nth: usize) -> Option<(Vec<u8>, i16)> {
        let mut generator = Self::new(api, version, seed);
        generator.force = Some(nth);
        generator.shape(api.body);
        Some((generator.out, generator.forced?))
    }

    /// splitmix64
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u8) -> u8 {
        u8::try_from(self.random() % u64::from(end)).unwrap()
    }

    fn uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.out.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
            value >>= 7;
        }
        self.out.push(u8::try_from(value).unwrap());
    }

    fn shape(&mut self, shape: &Shape) {
        let version = self.version;
        for field in shape.fields.iter().filter(|field| field.exists_in(version)) {
            self.kind(&field.kind, false);
        }
        if self.flexible {
            self.tags(shape);
        }
    }

    fn tags(&mut self, shape: &Shape) {
        let known: Vec<_> = shape
            .tags
            .iter()
            .filter(|(_, field)| field.exists_in(self.version))
            .collect();
        let known: Vec<_> = known.into_iter().filter(|_| self.below(2) == 0).collect();
        let unknown = self.below(3);
        self.uvarint(u32::try_from(known.len()).unwrap() + u32::from(unknown));
        for (tag, field) in known {
            self.uvarint(*tag);
            let before = std::mem::take(&mut self.out);
            self.kind(&field.kind, true);
            let value = std::mem::replace(&mut self.out, before);
            self.uvarint(u32::try_from(value.len()).unwrap());
            self.out.extend(value);
        }
        for tag in 0..unknown {
            self.uvarint(100 + 1000 * u32::from(tag));
            let len = self.below(4);
            self.uvarint(len.into());
            self.out.extend(vec![7; len.into()]);
        }
    }

    /// `tagged`: the codec leaves out a tagged field with its default value, so null, empty and 0 are not made.
    fn kind(&mut self, kind: &Kind, tagged: bool) {
        match kind {
            Kind::Bool => {
                let value = if tagged { 1 } else { self.below(2) };
                self.out.push(value);
            }
            Kind::Fixed(len) => {
                for _ in 0..*len {
                    let byte = if tagged {
                        1 + self.below(254)
                    } else {
                        self.below(255)
                    };
                    self.out.push(byte);
                }
            }
            Kind::String { null_from } => {
                if let Some(len) = self.length(*null_from, tagged, 2) {
                    self.out.extend(vec![b'x'; len.into()]);
                }
            }
            Kind::Bytes { null_from } => {
                if let Some(len) = self.length(*null_from, tagged, 4) {
                    self.out.extend(vec![0xff; len.into()]);
                }
            }
            Kind::Array { null_from, of } => {
                for _ in 0..self.length(*null_from, tagged, 4).unwrap_or(0) {
                    self.kind(of, false);
                }
            }
            Kind::Struct(shape) => self.shape(shape),
            Kind::Nullable(shape) => {
                if self.is_null(0, tagged) {
                    self.out.push(0xff);
                } else {
                    self.out.push(1);
                    self.shape(shape);
                }
            }
        }
    }

    fn is_null(&mut self, null_from: i16, tagged: bool) -> bool {
        let nth = self.nulls;
        self.nulls += 1;
        if self.force == Some(nth) {
            self.forced = Some(null_from);
            return true;
        }
        self.version >= null_from && !tagged && self.below(4) == 0
    }

    /// Writes a length, `width` bytes wide if not compact; `None` is null.
    fn length(&mut self, null_from: i16, tagged: bool, width: usize) -> Option<u8> {
        let null = self.is_null(null_from, tagged);
        let len = (!null).then(|| if tagged { 1 + self.below(3) } else { self.below(4) });
        match (len, self.flexible) {
            (Some(len), true) => self.uvarint(u32::from(len) + 1),
            (None, true) => self.uvarint(0),
            (Some(len), false) => self.out.extend(&i32::from(len).to_be_bytes()[4 - width..]),
            (None, false) => self.out.extend(&[0xff; 4][..width]),
        }
        len
    }
}
