//! What a table of keys is made of: fields with their documentation, bounds and presets, and the macro that makes from
//! one written list the struct, its reader and everything that is printed about it.

use super::value::{Raw, Unit};

/// What a key has when nobody sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Preset {
    /// It must be set.
    Required,
    /// Nothing; the documentation says what that means.
    Unset,
    /// This, as it would be written on a command line.
    Words(&'static str),
}

impl Preset {
    pub(crate) fn raw(self) -> Raw {
        match self {
            Self::Required | Self::Unset => Raw::Unset,
            Self::Words(words) => Raw::Words(words.to_owned()),
        }
    }
}

/// One key.
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) doc: &'static str,
    pub(crate) preset: Preset,
    /// What a value must be, in words.
    pub(crate) expects: fn() -> String,
    /// Whether a value can be read; the error says what stands there instead.
    pub(crate) check: fn(&Raw) -> Result<(), String>,
}

impl Field {
    /// The documentation without the blanks of its source.
    pub(crate) fn doc(&self) -> &'static str {
        self.doc.trim()
    }
}

/// A section, or one entry of a list.
pub(crate) trait Table: Sized {
    const NAME: &'static str;
    const DOC: &'static str;
    const FIELDS: &'static [Field];

    /// Builds it from one value per field, in order.
    fn build(source: &mut dyn FnMut(usize) -> Raw) -> Result<Self, String>;

    /// One TOML value per field, in order; `None` where it is unset.
    fn show(&self) -> Vec<Option<String>>;
}

/// The bounds and the unit of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) min: u64,
    pub(crate) max: u64,
    pub(crate) unit: Unit,
}

/// For values that are no numbers.
pub(crate) const ANY: Range = Range { min: 0, max: u64::MAX, unit: Unit::Count };

pub(crate) const fn count(min: u64, max: u64) -> Range {
    Range { min, max, unit: Unit::Count }
}

pub(crate) const fn bytes(min: u64, max: u64) -> Range {
    Range { min, max, unit: Unit::Bytes }
}

pub(crate) const fn ms(min: u64, max: u64) -> Range {
    Range { min, max, unit: Unit::Milliseconds }
}

macro_rules! preset {
    (required) => {
        $crate::config::table::Preset::Required
    };
    (unset) => {
        $crate::config::table::Preset::Unset
    };
    ($words:literal) => {
        $crate::config::table::Preset::Words($words)
    };
}

macro_rules! range {
    () => {
        $crate::config::table::ANY
    };
    ($range:expr) => {
        $range
    };
}

/// `name: Type [bounds] = preset;` for every key, each under its documentation.
macro_rules! table {
    ($(#[doc = $doc:literal])+ $name:ident $text:literal {
        $($(#[doc = $field_doc:literal])+ $field:ident: $ty:ty $([$range:expr])? = $preset:tt;)+
    }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $($(#[doc = $field_doc])+ pub $field: $ty,)+
        }

        impl $crate::config::table::Table for $name {
            const NAME: &'static str = $text;
            const DOC: &'static str = concat!($($doc,)+);
            const FIELDS: &'static [$crate::config::table::Field] = &[$($crate::config::table::Field {
                name: stringify!($field),
                doc: concat!($($field_doc,)+),
                preset: $crate::config::table::preset!($preset),
                expects: || <$ty as $crate::config::value::Value>::expects($crate::config::table::range!($($range)?)),
                check: |raw| <$ty as $crate::config::value::Value>::read(
                    raw,
                    $crate::config::table::range!($($range)?),
                ).map(drop),
            },)+];

            fn build(
                source: &mut dyn FnMut(usize) -> $crate::config::value::Raw,
            ) -> Result<Self, String> {
                let mut index = 0..;
                Ok(Self {
                    $($field: <$ty as $crate::config::value::Value>::read(
                        &source(index.next().unwrap_or_default()),
                        $crate::config::table::range!($($range)?),
                    )?,)+
                })
            }

            fn show(&self) -> Vec<Option<String>> {
                vec![$($crate::config::value::Value::show(
                    &self.$field,
                    $crate::config::table::range!($($range)?),
                ),)+]
            }
        }
    };
}

pub(crate) use {preset, range, table};
