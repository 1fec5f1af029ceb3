#![expect(clippy::unwrap_used, reason = "tests")]
//! Tables: what parses to what, what is true of which message, and every refusal.

use super::*;

struct Message<'a>(&'a [(&'a str, ValueRef<'a>)]);

impl Lookup for Message<'_> {
    fn get(&self, wanted: &str) -> ValueRef<'_> {
        self.0.iter().find(|(name, _)| *name == wanted).map_or(ValueRef::Null, |(_, value)| *value)
    }
}

const ORDER: Message<'static> = Message(&[
    ("t", ValueRef::Bool(true)),
    ("f", ValueRef::Bool(false)),
    ("byte", ValueRef::I8(5)),
    ("short", ValueRef::I16(5)),
    ("int", ValueRef::I32(5)),
    ("long", ValueRef::I64(5)),
    ("float", ValueRef::F32(0.5)),
    ("double", ValueRef::F64(0.5)),
    ("tenth32", ValueRef::F32(0.1)),
    ("nan", ValueRef::F64(f64::NAN)),
    ("min", ValueRef::I64(i64::MIN)),
    ("max", ValueRef::I64(i64::MAX)),
    ("color", ValueRef::Str("red")),
    ("text5", ValueRef::Str("5")),
    ("text10", ValueRef::Str("10")),
    ("text5_5", ValueRef::Str("5.5")),
    ("yes", ValueRef::Str("TRUE")),
    ("lines", ValueRef::Str("one\ntwo")),
    ("percent", ValueRef::Str("50%")),
    ("csv", ValueRef::Str("1,2,,3,,")),
    ("empty", ValueRef::Str("")),
    ("octets", ValueRef::Bytes(b"red")),
    ("content-type", ValueRef::Str("text/plain")),
    ("a.b", ValueRef::I32(1)),
    ("select \"me\"", ValueRef::I32(2)),
    ("null", ValueRef::I32(3)),
    ("Color", ValueRef::Str("blue")),
    ("JMSPriority", ValueRef::I32(7)),
    ("JMSType", ValueRef::Str("order")),
    ("JMSDeliveryMode", ValueRef::Str("PERSISTENT")),
    ("JMSRedelivered", ValueRef::Bool(false)),
    ("JMSTimestamp", ValueRef::I64(1_700_000_000_000)),
    ("$x_1", ValueRef::I32(4)),
    ("_", ValueRef::I32(6)),
]);

/// T, F or U: what the condition and its negation are together.
fn verdict_with(text: &str, options: Options) -> char {
    let ask = |text: &str| match Selector::parse_with(text, options) {
        Ok(selector) => selector.matches(&ORDER),
        Err(refusal) => panic!("{text}: {refusal}"),
    };
    let prefix_end = text.rfind("_props:").map_or(0, |at| at + "_props:".len());
    let (prefix, condition) = text.split_at(prefix_end);
    match (ask(text), ask(&format!("{prefix}NOT ({condition}\n)"))) {
        (true, false) => 'T',
        (false, true) => 'F',
        (false, false) => 'U',
        (true, true) => panic!("{text} is both true and false"),
    }
}

fn check(table: &[(&str, char)]) {
    for (text, expected) in table {
        assert_eq!(verdict_with(text, Options::default()), *expected, "{text}");
    }
}

fn check_converting(table: &[(&str, char)]) {
    for (text, expected) in table {
        assert_eq!(verdict_with(text, Options { convert_strings: true }), *expected, "{text}");
    }
}

#[test]
fn and_or_and_not_follow_the_three_valued_tables() {
    let names = [('T', "t"), ('F', "f"), ('U', "missing")];
    for (left, left_name) in names {
        for (right, right_name) in names {
            let and = match (left, right) {
                ('F', _) | (_, 'F') => 'F',
                ('T', 'T') => 'T',
                _ => 'U',
            };
            let or = match (left, right) {
                ('T', _) | (_, 'T') => 'T',
                ('F', 'F') => 'F',
                _ => 'U',
            };
            check(&[
                (&format!("{left_name} AND {right_name}"), and),
                (&format!("{left_name} OR {right_name}"), or),
                (&format!("t AND {left_name} AND {right_name}"), and),
                (&format!("f OR {left_name} OR {right_name}"), or),
            ]);
        }
    }
    check(&[("NOT t", 'F'), ("NOT f", 'T'), ("NOT missing", 'U'), ("NOT NOT t", 'T'), ("NULL", 'U')]);
}

#[test]
fn any_comparison_with_a_missing_property_is_unknown() {
    check(&[
        ("missing = 1", 'U'),
        ("missing <> 1", 'U'),
        ("1 <> missing", 'U'),
        ("missing = gone", 'U'),
        ("missing <> gone", 'U'),
        ("missing < 1", 'U'),
        ("color < missing", 'U'),
        ("missing LIKE '%'", 'U'),
        ("missing NOT LIKE '%'", 'U'),
        ("missing IN ('a')", 'U'),
        ("missing NOT IN ('a')", 'U'),
        ("missing BETWEEN 1 AND 2", 'U'),
        ("int BETWEEN missing AND 9", 'U'),
        ("int BETWEEN missing AND 4", 'F'),
        ("int NOT BETWEEN missing AND 4", 'T'),
        ("missing + 1 = 1", 'U'),
        ("-missing = 1", 'U'),
        ("'a' + missing = 'a'", 'U'),
        ("missing IS NULL", 'T'),
        ("missing IS NOT NULL", 'F'),
        ("color IS NULL", 'F'),
        ("color IS NOT NULL", 'T'),
        ("(missing = 1) IS NULL", 'T'),
        ("NULL IS NULL", 'T'),
        ("REGEX('a', missing)", 'U'),
        ("INLIST(MAKELIST(1, missing), 2)", 'U'),
        ("INLIST(MAKELIST(2, missing), 2)", 'T'),
        ("INLIST(SPLIT(missing, ','), 'a')", 'U'),
        ("REPLACE(missing, 'a', 'b') IS NULL", 'T'),
    ]);
}

#[test]
fn precedence_is_that_of_sql() {
    for (text, canonical) in [
        ("a OR b AND c", "(a OR (b AND c))"),
        ("a AND b OR c AND d", "((a AND b) OR (c AND d))"),
        ("a OR b OR c", "(a OR b OR c)"),
        ("a OR (b OR c)", "(a OR (b OR c))"),
        ("NOT a AND b", "((NOT a) AND b)"),
        ("NOT a = 1", "(NOT (a = 1))"),
        ("NOT a IS NULL", "(NOT (a IS NULL))"),
        ("NOT a LIKE 'x' OR b", "((NOT (a LIKE 'x')) OR b)"),
        ("a = NOT b", "(a = (NOT b))"),
        ("a = b = c", "((a = b) = c)"),
        ("a = b > 1", "(a = (b > 1))"),
        ("a > 1 = b < 2", "((a > 1) = (b < 2))"),
        ("a + b * c - d = 1", "(((a + (b * c)) - d) = 1)"),
        ("a - b - c > 1", "(((a - b) - c) > 1)"),
        ("a * b / c % d = 1", "((((a * b) / c) % d) = 1)"),
        ("-a * b = 1", "(((- a) * b) = 1)"),
        ("- -5 = +a", "(5 = a)"),
        ("a BETWEEN 1 AND 2 AND b", "((a BETWEEN 1 AND 2) AND b)"),
        ("a NOT BETWEEN b + 1 AND c * 2", "(a NOT BETWEEN (b + 1) AND (c * 2))"),
        ("a in ('x','y','x')", "(a IN ('x', 'y'))"),
        ("a = 1 -- and more\nor b", "((a = 1) OR b)"),
        ("a/* ** / */ = /**/1--", "(a = 1)"),
        ("(((a)))", "a"),
        ("\"a\" = \"b-c\"", "(a = \"b-c\")"),
        ("regex('a''b', x)", "REGEX('a''b', x)"),
        ("inlist(split(x, ',', -1), y)", "INLIST(SPLIT(x, ',', -1), y)"),
        ("a LIKE 'x' escape '!'", "(a LIKE 'x' ESCAPE '!')"),
        ("a is not null and b is null", "((a IS NOT NULL) AND (b IS NULL))"),
    ] {
        let selector = Selector::parse(text).unwrap();
        assert_eq!(selector.canonical(), canonical, "{text}");
        assert_eq!(selector.source(), text);
    }
}

#[test]
fn literals_are_read_as_sql_and_java_write_them() {
    check(&[
        ("int = 5L", 'T'),
        ("int = 5l", 'T'),
        ("31 = 0x1F", 'T'),
        ("31 = 0X1f", 'T'),
        ("15 = 017", 'T'),
        ("0 = 00", 'T'),
        ("5 = 5.", 'T'),
        ("double = .5", 'T'),
        ("1000 = 1E3", 'T'),
        ("double = 5.E-1", 'T'),
        ("double = 5e-1", 'T'),
        ("9.5 = 09.5", 'T'),
        ("max = 9223372036854775807", 'T'),
        ("min = -9223372036854775808", 'T'),
        // Too large for 64 bits, so a double; and so the other side widens too.
        ("max < 9223372036854775808", 'F'),
        ("max - 1024 < 9223372036854775808", 'T'),
        ("max < 99999999999999999999", 'T'),
        ("max = 0x7FFFFFFFFFFFFFFF", 'T'),
        ("'it''s' = 'it' + '''' + 's'", 'T'),
        ("'' = empty", 'T'),
        ("t = TRUE AND f = false", 'T'),
        ("'ü' = 'ü'", 'T'),
    ]);
}

#[test]
fn names_are_case_sensitive_and_may_be_quoted() {
    check(&[
        ("color = 'red' AND Color = 'blue'", 'T'),
        ("\"color\" = 'red'", 'T'),
        ("\"content-type\" = 'text/plain'", 'T'),
        ("\"a.b\" = 1", 'T'),
        ("\"select \"\"me\"\"\" = 2", 'T'),
        ("\"null\" = 3", 'T'),
        ("$x_1 = 4 AND _ = 6", 'T'),
        // Without the quotes it is a subtraction of missing properties.
        ("content-type = 'text/plain'", 'U'),
        ("hyphenated_props:content-type = 'text/plain'", 'T'),
        ("hyphenated_props:int - 1 = 4", 'T'),
        ("hyphenated_props:int- 1 = 4", 'T'),
        ("hyphenated_props:int-1 = 4", 'U'),
        ("hyphenated_props:int--1", 'F'),
        ("JMSPriority > 5 AND JMSType = 'order' AND JMSDeliveryMode = 'PERSISTENT'", 'T'),
        ("JMSRedelivered OR JMSTimestamp < 0", 'F'),
    ]);
}

#[test]
fn a_bare_name_is_a_condition_only_if_it_is_a_boolean() {
    check(&[
        ("t", 'T'),
        ("f", 'F'),
        ("missing", 'U'),
        ("int", 'F'),
        ("color", 'F'),
        ("yes", 'F'),
        ("octets", 'F'),
    ]);
    check_converting(&[("yes", 'T'), ("color", 'F'), ("int", 'F'), ("missing", 'U')]);
}

#[test]
fn numbers_of_every_width_compare_with_each_other() {
    for left in ["byte", "short", "int", "long"] {
        for right in ["byte", "short", "int", "long", "5", "5.0"] {
            check(&[
                (&format!("{left} = {right}"), 'T'),
                (&format!("{right} = {left}"), 'T'),
                (&format!("{left} <> {right}"), 'F'),
                (&format!("{left} >= {right}"), 'T'),
                (&format!("{left} > {right}"), 'F'),
            ]);
        }
        for right in ["float", "double", "0.5"] {
            check(&[
                (&format!("{left} > {right}"), 'T'),
                (&format!("{right} <= {left}"), 'T'),
                (&format!("{right} = {left}"), 'F'),
            ]);
        }
    }
    check(&[
        ("float = double", 'T'),
        ("tenth32 = 0.1", 'F'),
        ("tenth32 > 0.1", 'T'),
        ("nan = nan", 'F'),
        ("nan <> nan", 'T'),
        ("nan < 1", 'F'),
        ("max - 1 < max", 'T'),
        ("0.0 = -0.0", 'T'),
    ]);
}

#[test]
fn values_of_different_kinds_are_never_equal() {
    check(&[
        ("text5 = 5", 'F'),
        ("5 = text5", 'F'),
        ("text5 <> 5", 'T'),
        ("text5 > 4", 'F'),
        ("text10 > text5", 'F'),
        ("text10 < text5", 'F'),
        ("yes = TRUE", 'F'),
        ("t = 1", 'F'),
        ("t = color", 'F'),
        ("color = 'red'", 'T'),
        ("color <> 'red'", 'F'),
        ("color = 'Red'", 'F'),
        ("octets = 'red'", 'F'),
        ("octets = octets", 'F'),
        ("octets IS NOT NULL", 'T'),
        ("octets LIKE 'red'", 'F'),
        ("octets IN ('red')", 'U'),
        ("t > 1", 'F'),
        ("(int = 5) = t", 'T'),
        ("(int = 5) <> TRUE", 'F'),
    ]);
}

#[test]
fn text_converts_only_if_asked_to() {
    let table = [
        ("text5 = 5", 'T'),
        ("5 = text5", 'T'),
        ("text5 <> 5", 'F'),
        ("text5 = byte", 'T'),
        ("text5 = 5.0", 'T'),
        ("text5_5 > 5", 'T'),
        ("text5_5 = 5.5", 'T'),
        ("text10 > 9", 'T'),
        ("text10 > text5", 'T'),
        ("text10 BETWEEN 9 AND 11", 'T'),
        ("text5 = '5.0'", 'F'),
        ("color = 5", 'F'),
        ("color <> 5", 'T'),
        ("color > 5", 'F'),
        ("empty = 0", 'F'),
        ("yes = TRUE", 'T'),
        ("yes = FALSE", 'F'),
        ("color = FALSE", 'T'),
        ("t = yes", 'T'),
        ("text5 * 2 = 10", 'T'),
        ("-text5 = -5", 'T'),
        ("text10 / text5 = 2", 'T'),
        ("2 + text5 = 7", 'T'),
        ("text5 + 2 = '52'", 'T'),
        ("color * 2 = 10", 'U'),
        ("int LIKE '5'", 'F'),
        ("int IN ('5')", 'U'),
        ("INLIST(SPLIT(csv, ','), 2)", 'T'),
    ];
    check_converting(&table);
    for (text, expected) in table {
        let text = format!("convert_string_expressions:{text}");
        let selector = Selector::parse(&text).unwrap();
        assert!(selector.options().convert_strings);
        assert_eq!(selector.matches(&ORDER), expected == 'T', "{text}");
    }
    for both in [
        "hyphenated_props:convert_string_expressions:text5 > 4 AND content-type = 'text/plain'",
        " convert_string_expressions: hyphenated_props: text5 > 4 AND content-type = 'text/plain'",
    ] {
        assert!(Selector::parse(both).unwrap().matches(&ORDER));
    }
}

#[test]
fn arithmetic_is_exact_until_it_cannot_be() {
    check(&[
        ("int + 1 = 6", 'T'),
        ("int - 6 = -1", 'T'),
        ("int * 3 = 15", 'T'),
        ("int / 2 = 2.5", 'T'),
        ("int % 3 = 2", 'T'),
        ("7 % 2.5 = 2", 'T'),
        ("2147483647 + 1 = 2147483648", 'T'),
        ("max + 1 > max", 'F'),
        ("max + 1 = 9223372036854775808", 'T'),
        ("-min = 9223372036854775808", 'T'),
        ("1 / 0 > max", 'T'),
        ("0 / 0 = 0", 'F'),
        ("float + double = 1", 'T'),
        ("color + 'dish' = 'reddish'", 'T'),
        ("'n' + 5 = 'n5'", 'T'),
        ("'n' + 0.5 = 'n0.5'", 'T'),
        ("'n' + t = 'ntrue'", 'T'),
        ("5 + 'n' = '5n'", 'U'),
        ("color - 1 = 1", 'U'),
        ("-color = 1", 'U'),
        ("'n' + octets = 'n'", 'U'),
        ("NULL + 1 = 1", 'U'),
    ]);
}

#[test]
fn like_knows_wildcards_and_escapes() {
    check(&[
        ("color LIKE 'red'", 'T'),
        ("color LIKE 'r_d'", 'T'),
        ("color LIKE '_'", 'F'),
        ("color LIKE '%'", 'T'),
        ("color LIKE 'r%'", 'T'),
        ("color LIKE '%d'", 'T'),
        ("color LIKE '%e%'", 'T'),
        ("color LIKE 'R%'", 'F'),
        ("color NOT LIKE 'b%'", 'T'),
        ("empty LIKE ''", 'T'),
        ("empty LIKE '%'", 'T'),
        ("empty LIKE '_'", 'F'),
        ("lines LIKE 'one%two'", 'T'),
        ("lines LIKE 'one_two'", 'T'),
        ("percent LIKE '50!%' ESCAPE '!'", 'T'),
        ("percent LIKE '5!%' ESCAPE '!'", 'F'),
        ("'a_b' LIKE 'a\\_b' ESCAPE '\\'", 'T'),
        ("'axb' LIKE 'a\\_b' ESCAPE '\\'", 'F'),
        ("'a!b' LIKE 'a!!b' ESCAPE '!'", 'T'),
        ("'a!b' LIKE 'a!b' ESCAPE '!'", 'T'),
        ("'a!' LIKE 'a!' ESCAPE '!'", 'T'),
        ("'a%b' LIKE 'a%%b' ESCAPE '%'", 'T'),
        ("'axb' LIKE 'a%%b' ESCAPE '%'", 'F'),
        ("'a.b' LIKE 'a.b'", 'T'),
        ("'axb' LIKE 'a.b'", 'F'),
        ("int LIKE '5'", 'F'),
        ("int NOT LIKE '5'", 'T'),
    ]);
}

#[test]
fn in_takes_strings_and_is_unknown_for_other_kinds() {
    let long: Vec<String> = (0..100).map(|number| format!("'c{number}'")).collect();
    let long = long.join(",");
    check(&[
        ("color IN ('red')", 'T'),
        ("color IN ('blue', 'red')", 'T'),
        ("color NOT IN ('blue', 'green')", 'T'),
        ("color IN ('blue')", 'F'),
        ("(color) IN ('red')", 'T'),
        ("int IN ('5')", 'U'),
        ("int NOT IN ('5')", 'U'),
        (&format!("color IN ({long}, 'red')"), 'T'),
        (&format!("color NOT IN ({long})"), 'T'),
    ]);
}

#[test]
fn between_includes_its_bounds() {
    check(&[
        ("int BETWEEN 5 AND 5", 'T'),
        ("int BETWEEN 4 AND 6", 'T'),
        ("int BETWEEN 6 AND 4", 'F'),
        ("int NOT BETWEEN 6 AND 7", 'T'),
        ("int BETWEEN 4.9 AND long", 'T'),
        ("color BETWEEN 1 AND 2", 'F'),
        ("color NOT BETWEEN 1 AND 2", 'T'),
    ]);
}

#[test]
fn functions_see_text() {
    check(&[
        ("REGEX('AA', 'XAAX')", 'T'),
        ("REGEX('^AA$', 'XAAX')", 'F'),
        ("REGEX('^r.d$', color)", 'T'),
        ("REGEX('^[0-9]$', int)", 'T'),
        ("REGEX('^0\\.5$', float)", 'T'),
        ("REGEX('tr', t)", 'T'),
        ("REGEX('red', octets)", 'F'),
        ("REGEX('(?i)RED', color)", 'T'),
        ("REPLACE('1,2/3', '[,/]', ';') = '1;2;3'", 'T'),
        ("REPLACE(color, '(r)(e)', '$2$1') = 'erd'", 'T'),
        ("REPLACE(int, '5', '6') IS NULL", 'T'),
        ("INLIST(SPLIT('1,2,3', ','), '2')", 'T'),
        ("INLIST(SPLIT('1,2,3', ','), 2)", 'F'),
        ("INLIST(SPLIT(csv, ','), '')", 'T'),
        ("INLIST(SPLIT('1,,', ','), '')", 'F'),
        ("INLIST(SPLIT('1,,', ',', -1), '')", 'T'),
        ("INLIST(SPLIT('1,2,3', ',', 2), '2,3')", 'T'),
        ("INLIST(SPLIT(octets, ','), 'red')", 'U'),
        ("INLIST(MAKELIST('red', 5, TRUE), color)", 'T'),
        ("INLIST(MAKELIST('red', 5, TRUE), long)", 'T'),
        ("INLIST(MAKELIST('red', 5, TRUE), t)", 'T'),
        ("INLIST(MAKELIST(int + 1), 6)", 'T'),
        ("INLIST(MAKELIST(), 6)", 'F'),
        ("NOT INLIST(MAKELIST(1), int) AND t", 'T'),
    ]);
    // Without the parenthesis they are names like any other.
    assert!(!Selector::parse("regex = 1 OR split = makelist").unwrap().matches(&ORDER));
}

#[test]
fn what_cannot_be_a_selector_is_refused_with_place_and_reason() {
    for (text, sentence) in [
        ("", "character 1: the selector is empty"),
        ("  -- nothing", "the selector is empty"),
        ("convert_string_expressions:", "character 28: the selector is empty"),
        ("a =", "character 4: expected a name or a value, found the end"),
        ("a b", "character 3: expected an operator or the end, found the name b"),
        ("a = 1 b", "character 7: expected an operator or the end, found the name b"),
        ("é = 1", "character 1: the character 'é' has no meaning outside quotes"),
        ("'é' = é", "character 7: the character 'é' has no meaning outside quotes"),
        ("a != 1", "character 3: \"not equal\" is written <>, not !="),
        ("a == 1", "character 4: expected a name or a value, found ="),
        ("a = 'x", "character 5: a string that begins with ' must end with '"),
        ("\"a = 1", "character 1: a name that begins with \" must end with \""),
        ("\"\" = 1", "character 1: a name between double quotes must not be empty"),
        ("a /* b", "character 3: a comment that begins with /* must end with */"),
        ("a.b = 1", "character 2: a name that holds a dot must be written in double quotes"),
        ("a = 018", "character 7: a number that begins with 0 is octal and has no digit 8 or 9"),
        ("a = 0x", "character 6: expected an operator or the end, found the name x"),
        ("a = 0xFFFFFFFFFFFFFFFF", "character 5: this number does not fit in 64 bits"),
        ("a = 1E999", "character 5: this number is too large"),
        ("a = 12abc", "character 7: expected an operator or the end, found the name abc"),
        ("(a", "character 3: expected an operator or ), found the end"),
        ("a)", "character 2: expected an operator or the end, found )"),
        ("()", "character 2: expected a name or a value, found )"),
        ("5", "character 1: expected a condition"),
        ("'red'", "character 1: expected a condition"),
        ("a AND 5", "character 7: expected a condition"),
        ("a + 1 OR b", "character 1: expected a condition"),
        ("NOT 5", "character 5: expected a condition"),
        ("REPLACE(a, 'b', 'c')", "character 1: expected a condition"),
        ("a > 'x'", "character 5: only numbers can be compared with <, <=, >, >= and BETWEEN"),
        ("'x' <= a", "character 1: only numbers"),
        ("a > TRUE", "character 5: only numbers"),
        ("a < NULL", "character 5: only numbers"),
        ("a > b > c", "character 1: only numbers"),
        ("a BETWEEN 'a' AND 'b'", "character 11: only numbers"),
        ("(a = 1) BETWEEN 1 AND 2", "character 1: only numbers"),
        ("a = NULL", "character 5: nothing equals NULL; write IS NULL or IS NOT NULL"),
        ("NULL <> a", "character 1: nothing equals NULL"),
        ("TRUE = 5", "character 1: TRUE and FALSE cannot be compared with a number or a string"),
        ("'x' = FALSE", "character 1: TRUE and FALSE cannot"),
        ("t + TRUE = 1", "character 5: expected a value to compute with, found a condition"),
        ("-(a = b) = 1", "character 2: expected a value to compute with"),
        ("a IS 5", "character 6: expected NULL or NOT NULL after IS, found the number 5"),
        ("a IS NOT 5", "character 10: expected NULL after IS NOT"),
        ("a LIKE 5", "character 8: expected a string as the pattern of LIKE, found the number 5"),
        ("a LIKE b", "character 8: expected a string as the pattern of LIKE, found the name b"),
        ("a LIKE 'x' ESCAPE", "character 18: expected a string of one character after ESCAPE, found the end"),
        ("a LIKE 'x' ESCAPE ''", "character 19: ESCAPE takes a string of exactly one character"),
        ("a LIKE 'x' ESCAPE '!!'", "character 19: ESCAPE takes a string of exactly one character"),
        ("a NOT 5", "character 7: expected LIKE, BETWEEN or IN after NOT, found the number 5"),
        ("a IN 'x'", "character 6: expected ( after IN, found the string 'x'"),
        ("a IN ()", "character 7: expected a string in the list of IN, found )"),
        ("a IN (5)", "character 7: expected a string in the list of IN, found the number 5"),
        ("a IN ('x' 'y')", "character 11: expected a comma or ) in the list of IN, found the string 'y'"),
        ("5 IN ('x')", "character 1: IN needs a name on its left"),
        ("a BETWEEN 1", "character 12: expected AND between the bounds of BETWEEN, found the end"),
        (
            "AND a",
            "character 1: expected a name or a value (reserved words need double quotes to be names), found AND",
        ),
        ("like = 1", "found LIKE"),
        ("a OR", "character 5: expected a name or a value, found the end"),
        (
            "NOW() = 1",
            "character 1: there is no such function; there are INLIST, MAKELIST, REGEX, REPLACE and SPLIT",
        ),
        ("REGEX(a)", "character 7: expected a string as the regular expression of REGEX, found the name a"),
        ("REGEX('a')", "character 10: expected a comma: REGEX takes an expression and a subject, found )"),
        ("REGEX('a', b, c)", "character 13: expected ): REGEX takes an expression and a subject, found ,"),
        ("REGEX('(', b)", "character 7: the regular expression of REGEX is not valid"),
        ("REGEX('(a)\\1', b)", "character 7: the regular expression of REGEX is not valid"),
        (
            "REPLACE(a, 'b', '$1') = 'x'",
            "character 17: the replacement of REPLACE is not valid: there is no group 1",
        ),
        ("REPLACE(a, 'b', c) = 'x'", "character 17: expected a string as the replacement of REPLACE"),
        ("REPLACE(a, 'b') = 'x'", "character 15: expected a comma: REPLACE takes"),
        (
            "INLIST('1,2', '1')",
            "character 8: expected MAKELIST(…) or SPLIT(…) as the first argument of INLIST",
        ),
        (
            "INLIST(list, '1')",
            "character 8: expected MAKELIST(…) or SPLIT(…) as the first argument of INLIST",
        ),
        ("INLIST(SPLIT(a, ',', 'x'), '1')", "character 22: the limit of SPLIT must be an integer"),
        ("INLIST(SPLIT(a), '1')", "character 15: expected a comma: SPLIT takes"),
        (
            "INLIST(MAKELIST(1, 2)",
            "character 22: expected a comma: INLIST takes a list and a value, found the end",
        ),
        ("MAKELIST(1) = 1", "character 1: a list can only be the first argument of INLIST"),
        ("SPLIT(a, ',') IS NULL", "character 1: a list can only be the first argument of INLIST"),
        ("a = 'x' ; b", "character 9: the character ';' has no meaning outside quotes"),
        ("a = \u{0}", "character 5: the character '\\0' has no meaning outside quotes"),
    ] {
        let refusal = Selector::parse(text).expect_err(text);
        assert_eq!(refusal.code, Code::InvalidSelector, "{text}");
        assert!(refusal.sentence.contains(sentence), "{text}: {refusal}");
    }
}

#[test]
fn xpath_and_xquery_are_refused_as_unsupported() {
    for text in ["XPATH '//a'", "xquery '//a'", "a = 1 AND NOT XPath '//a'"] {
        assert_eq!(Selector::parse(text).unwrap_err().code, Code::Unsupported, "{text}");
    }
}

#[test]
fn length_and_nesting_are_bounded() {
    let refused = |text: &str| Selector::parse(text).unwrap_err().sentence.into_owned();
    assert!(refused(&" ".repeat(TEXT_BYTES_MAX + 1)).contains("at most 16384 are allowed"));
    for (open, close) in [("(", ")"), ("NOT ", ""), ("- ", ""), ("+ ", ""), ("INLIST(MAKELIST(", "), 1)")] {
        let nested = |depth: usize| format!("{}a{} IS NULL", open.repeat(depth), close.repeat(depth));
        Selector::parse(&nested(parser::NESTING_MAX - 1)).unwrap();
        for depth in [parser::NESTING_MAX, 500] {
            let text = nested(depth);
            assert!(refused(&text).contains("nested deeper than 64 levels"), "{open}");
        }
    }
    for chain in [" + 1", " - 1", " = b", " * b"] {
        let chained = |count: usize| format!("(a{}) IS NULL", chain.repeat(count));
        let _ = Selector::parse(&chained(parser::DEPTH_MAX - 2)).unwrap().matches(&ORDER);
        assert!(refused(&chained(parser::DEPTH_MAX)).contains("nested deeper than 200 levels"));
    }
    assert!(
        refused(&format!("a{}", " OR REGEX('x', a)".repeat(9))).contains("more than 8 regular expressions")
    );
    // Alternatives are a chain, not a depth.
    let long = format!("f{} OR t", " OR f".repeat(3_000));
    assert!(Selector::parse(&long).unwrap().matches(&ORDER));
    let long = format!("t{} AND f", " AND t".repeat(2_000));
    assert!(!Selector::parse(&long).unwrap().matches(&ORDER));
}

#[test]
fn text_that_grows_too_long_is_null() {
    let big = "x".repeat(100_000);
    let properties = [("big", ValueRef::Str(&big))];
    let message = Message(&properties);
    assert!(Selector::parse("(big + big) IS NOT NULL").unwrap().matches(&message));
    assert!(Selector::parse("(big + big + big) IS NULL").unwrap().matches(&message));
}

#[test]
fn a_selector_can_be_shared_and_remembers_what_it_was() {
    fn shared<T: Send + Sync + Clone>(_: &T) {}
    let selector = Selector::parse("a = 1 -- why").unwrap();
    shared(&selector);
    assert_eq!(selector.to_string(), "a = 1 -- why");
    assert_eq!(selector, selector.clone());
    assert_ne!(selector, Selector::parse("a = 1").unwrap());
}
