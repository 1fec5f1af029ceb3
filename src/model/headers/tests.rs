#![expect(clippy::unwrap_used, reason = "tests")]
use proptest::prelude::*;

use super::ConversionError::{Conversion, Format};
use super::*;

#[test]
fn reading_as_another_type_follows_the_table_of_jms() {
    // Columns: bool, i8, i16, i32, i64, f32, f64, string. x converts, . does not, f is text that does not read so.
    for (stored, row) in [
        (ValueRef::Bool(true), "x......x"),
        (ValueRef::I8(1), ".xxxx..x"),
        (ValueRef::I16(1), "..xxx..x"),
        (ValueRef::I32(1), "...xx..x"),
        (ValueRef::I64(1), "....x..x"),
        (ValueRef::F32(1.0), ".....xxx"),
        (ValueRef::F64(1.0), "......xx"),
        (ValueRef::Str("1"), "xxxxxxxx"),
        (ValueRef::Str("one"), "xffffffx"),
        (ValueRef::Bytes(b"1"), "........"),
        (ValueRef::Nested(&[11, 0]), "........"),
        (ValueRef::Null, "xffffff."),
    ] {
        let cell = |outcome: Result<(), ConversionError>| match outcome {
            Ok(()) => 'x',
            Err(Conversion) => '.',
            Err(Format) => 'f',
        };
        let cells: String = [
            cell(stored.as_bool().map(drop)),
            cell(stored.as_i8().map(drop)),
            cell(stored.as_i16().map(drop)),
            cell(stored.as_i32().map(drop)),
            cell(stored.as_i64().map(drop)),
            cell(stored.as_f32().map(drop)),
            cell(stored.as_f64().map(drop)),
            cell(stored.as_string().map(drop)),
        ]
        .into_iter()
        .collect();
        assert_eq!(cells, row, "{stored:?}");
    }
    assert_eq!(Value::List(vec![]).as_string(), Err(Conversion));
    assert_eq!(Value::I8(7).as_i64(), Ok(7));
}

#[test]
fn text_reads_as_numbers_and_booleans_as_java_reads_it() {
    for (text, expected) in [("TRUE", true), ("true", true), ("yes", false), ("1", false), ("", false)] {
        assert_eq!(ValueRef::Str(text).as_bool(), Ok(expected), "{text}");
    }
    assert_eq!(ValueRef::Str("-128").as_i8(), Ok(-128));
    assert_eq!(ValueRef::Str("+7").as_i8(), Ok(7));
    for text in ["128", "", " 1", "1.0", "0x1"] {
        assert_eq!(ValueRef::Str(text).as_i8(), Err(Format), "{text}");
    }
    assert_eq!(ValueRef::Str("9007199254740993").as_i64(), Ok(9_007_199_254_740_993));
    assert_eq!(ValueRef::Str("0.1").as_f32(), Ok(0.1));
    for (text, expected) in
        [("0.1", 0.1), (" 1e3 ", 1000.0), ("-.5", -0.5), ("5.", 5.0), ("-Infinity", f64::NEG_INFINITY)]
    {
        assert_eq!(ValueRef::Str(text).as_f64(), Ok(expected), "{text}");
    }
    assert!(ValueRef::Str("NaN").as_f64().unwrap().is_nan());
    for text in ["", "inf", "infinity", "nan", "1,5", "1e", "--1", "0x1p3", "."] {
        assert_eq!(ValueRef::Str(text).as_f64(), Err(Format), "{text}");
    }
    assert_eq!(ValueRef::F32(0.5).as_f64(), Ok(0.5));
}

fn nested() -> Value {
    Value::Map(vec![
        ("n".into(), Value::Null),
        ("b".into(), Value::Bool(true)),
        ("big".into(), Value::I64(9_007_199_254_740_993)),
        ("small".into(), Value::I64(-9_007_199_254_740_991)),
        ("f".into(), Value::List(vec![Value::F32(0.1), Value::F64(f64::NAN), Value::F64(1e300)])),
        ("\"q\"\u{1}".into(), Value::String("a\\b\n\tü".into())),
        ("o".into(), Value::Bytes(Bytes::from_static(&[0xff, 0]))),
        ("e".into(), Value::Map(vec![])),
    ])
}

const NESTED_JSON: &str = concat!(
    r#"{"n":null,"b":true,"big":{"$type":"i64","value":"9007199254740993"},"small":-9007199254740991,"#,
    r#""f":[0.1,"NaN",1e300],"\"q\"\u0001":"a\\b\n\tü","o":{"$bin":"/wA="},"e":{}}"#,
);

#[test]
fn values_as_text_read_back_or_are_json() {
    for (value, text) in [
        (Value::Null, ""),
        (Value::Bool(true), "true"),
        (Value::Bool(false), "false"),
        (Value::I8(-128), "-128"),
        (Value::I16(300), "300"),
        (Value::I32(-1), "-1"),
        (Value::I64(i64::MIN), "-9223372036854775808"),
        (Value::F32(0.1), "0.1"),
        (Value::F64(0.1), "0.1"),
        (Value::F64(f64::from(0.1f32)), "0.10000000149011612"),
        (Value::F64(5.0), "5.0"),
        (Value::F64(1e300), "1e300"),
        (Value::F64(f64::NAN), "NaN"),
        (Value::F32(f32::INFINITY), "Infinity"),
        (Value::F64(f64::NEG_INFINITY), "-Infinity"),
        (Value::String("a:b\n".into()), "a:b\n"),
        (Value::Bytes(Bytes::from_static(&[0xff, 0])), "/wA="),
        (Value::List(vec![]), "[]"),
        (nested(), NESTED_JSON),
    ] {
        let mut owned = Vec::new();
        value.write_text(&mut owned);
        let mut stored = Vec::new();
        value.encode(&mut stored);
        let (borrowed, used) = ValueRef::decode(&stored).unwrap();
        assert_eq!(used, stored.len());
        let mut again = Vec::new();
        borrowed.write_text(&mut again);
        assert_eq!(owned, again);
        let written = String::from_utf8(owned).unwrap();
        assert_eq!(written, text);
    }
}

#[test]
fn the_stored_form_is_this_and_stays_this() {
    let map = Value::Map(vec![("k".into(), Value::List(vec![Value::I8(1), Value::Null]))]);
    for (value, stored) in [
        (Value::Null, &[0][..]),
        (Value::Bool(true), &[1, 1]),
        (Value::I8(-1), &[2, 0xff]),
        (Value::I16(2), &[3, 2, 0]),
        (Value::I32(2), &[4, 2, 0, 0, 0]),
        (Value::I64(2), &[5, 2, 0, 0, 0, 0, 0, 0, 0]),
        (Value::F32(1.0), &[6, 0, 0, 0x80, 0x3f]),
        (Value::F64(1.0), &[7, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]),
        (Value::String("ab".into()), &[8, 2, b'a', b'b']),
        (Value::Bytes(Bytes::from_static(&[9])), &[9, 1, 9]),
        (map, &[10, 7, 1, b'k', 11, 3, 2, 1, 0]),
    ] {
        let mut out = Vec::new();
        value.encode(&mut out);
        assert_eq!(out, stored, "{value:?}");
        let (read, used) = ValueRef::decode(&out).unwrap();
        assert_eq!((read.to_value(), used), (value, stored.len()));
        for cut in 0..stored.len() {
            assert_eq!(ValueRef::decode(&stored[..cut]), None);
        }
    }
    assert_eq!(ValueRef::decode(&[12]), None);
    assert_eq!(ValueRef::decode(&[8, 1, 0xff]), None);
}

#[test]
fn nesting_is_cut_at_its_limit() {
    let mut deep = Value::I8(1);
    for _ in 0..NESTING_MAX + 10 {
        deep = Value::List(vec![deep]);
    }
    let mut stored = Vec::new();
    deep.encode(&mut stored);
    let expanded = ValueRef::decode(&stored).unwrap().0.to_value();
    let mut text = Vec::new();
    expanded.write_text(&mut text);
    let expected = format!("{}null{}", "[".repeat(NESTING_MAX), "]".repeat(NESTING_MAX));
    assert_eq!(String::from_utf8(text).unwrap(), expected);

    // Deeper on disk than anything we write.
    let mut stored = vec![0];
    for _ in 0..5_000 {
        let mut outer = vec![TAG_LIST];
        varint::write(&mut outer, stored.len() as u64);
        outer.extend_from_slice(&stored);
        stored = outer;
    }
    let (read, _) = ValueRef::decode(&stored).unwrap();
    let mut text = Vec::new();
    read.write_text(&mut text);
    assert_eq!(String::from_utf8(text).unwrap(), expected);
}

#[test]
fn a_nested_value_that_is_none_is_stored_as_null() {
    for bytes in [&[][..], &[11], &[11, 5], &[11, 0, 0], &[8, 0]] {
        let mut out = Vec::new();
        ValueRef::Nested(bytes).encode(&mut out);
        assert_eq!(out, [0]);
        assert_eq!(
            ValueRef::Nested(bytes).to_value() == Value::Null,
            bytes != [11, 0, 0] && bytes != [11, 5]
        );
    }
}

#[test]
fn jms_allows_java_identifiers_that_selectors_do_not_reserve() {
    for name in ["a", "_", "$", "JMSXGroupID", "a1", "größe", "nothing", "isnt"] {
        assert!(is_jms_identifier(name), "{name}");
    }
    for name in ["", "1a", "a-b", "a.b", "a b", "content-type", "NOT", "null", "Between", "escape"] {
        assert!(!is_jms_identifier(name), "{name}");
    }
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i8>().prop_map(Value::I8),
        any::<i16>().prop_map(Value::I16),
        any::<i32>().prop_map(Value::I32),
        any::<i64>().prop_map(Value::I64),
        any::<f32>().prop_filter("NaN equals nothing", |value| !value.is_nan()).prop_map(Value::F32),
        any::<f64>().prop_filter("NaN equals nothing", |value| !value.is_nan()).prop_map(Value::F64),
        ".{0,200}".prop_map(|text| Value::String(text.into())),
        prop::collection::vec(any::<u8>(), 0..200).prop_map(|bytes| Value::Bytes(bytes.into())),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::List),
            prop::collection::vec((".{0,5}".prop_map(Box::from), inner), 0..6).prop_map(Value::Map),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_stored_reads_back(value in value(), behind in prop::collection::vec(any::<u8>(), 0..4)) {
        let mut stored = Vec::new();
        value.encode(&mut stored);
        let len = stored.len();
        stored.extend_from_slice(&behind);
        let (read, used) = ValueRef::decode(&stored).unwrap();
        prop_assert_eq!(used, len);
        prop_assert_eq!(read.to_value(), value);
        let mut again = Vec::new();
        read.encode(&mut again);
        prop_assert_eq!(again.as_slice(), &stored[..len]);
    }

    #[test]
    fn any_bytes_decode_render_and_expand_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        for value in [ValueRef::decode(&bytes).map(|(value, _)| value), Some(ValueRef::Nested(&bytes))].into_iter().flatten() {
            let mut out = Vec::new();
            value.write_text(&mut out);
            prop_assert!(String::from_utf8(out).is_ok());
            let _ = value.to_value();
        }
    }

    #[test]
    fn floats_as_text_read_back(value in any::<f64>(), short in any::<f32>()) {
        let text = FloatText(value).to_string();
        let again = parse_float(&text).unwrap();
        prop_assert!(again == value || (again.is_nan() && value.is_nan()), "{}", text);
        let text = FloatText(short).to_string();
        let again = ValueRef::Str(&text).as_f32().unwrap();
        prop_assert!(again == short || (again.is_nan() && short.is_nan()), "{}", text);
    }
}
