//! Properties: no input panics, and what is printed reads back as the same tree with the same answer.

use proptest::prelude::*;

use super::like::Like;
use super::pattern::{Pattern, Template};
use super::tree::{Arithmetic, Choices, Comparison, Expr, List};
use super::*;

fn name() -> impl Strategy<Value = Box<str>> {
    prop_oneof![
        "[a-c$_][a-c0-9]{0,3}".prop_map(Box::from),
        Just(Box::from("not")),
        Just(Box::from("with \" quote and - and .")),
        "\\PC{1,6}".prop_map(Box::from),
    ]
}

fn text() -> impl Strategy<Value = Box<str>> {
    prop_oneof!["[a-z'%_!]{0,6}".prop_map(Box::from), "\\PC{0,6}".prop_map(Box::from)]
}

fn pattern() -> impl Strategy<Value = Box<Pattern>> {
    prop::sample::select(vec!["a", "(a)|b", "^x+$", ",", "'"])
        .prop_map(|text| Box::new(Pattern::new(text).expect("the expressions above are valid")))
}

fn value() -> impl Strategy<Value = Expr> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(Expr::Integer),
        (-20i64..20).prop_map(Expr::Integer),
        any::<f64>().prop_filter("literals are finite", |value| value.is_finite()).prop_map(Expr::Float),
        name().prop_map(Expr::Name),
    ];
    leaf.prop_recursive(4, 12, 3, |inner| {
        prop_oneof![
            inner
                .clone()
                .prop_filter("a negated number is a literal", |operand| {
                    !matches!(operand, Expr::Float(_))
                        && !matches!(operand, Expr::Integer(value) if *value != i64::MIN)
                })
                .prop_map(|operand| Expr::Negate(Box::new(operand))),
            (
                prop::sample::select(vec![
                    Arithmetic::Plus,
                    Arithmetic::Minus,
                    Arithmetic::Times,
                    Arithmetic::Divide,
                    Arithmetic::Remainder
                ]),
                inner.clone(),
                inner.clone()
            )
                .prop_map(|(arithmetic, left, right)| Expr::Compute(arithmetic, Box::new([left, right]))),
            (inner, pattern(), "[a-z' ]{0,4}").prop_map(|(subject, pattern, with)| {
                let with = Template::new(&with, &pattern).expect("without $ and \\ it is plain text");
                Expr::Replace { subject: Box::new(subject), pattern, with: Box::new(with) }
            }),
        ]
    })
}

fn condition() -> impl Strategy<Value = Expr> {
    let leaf = prop_oneof![
        name().prop_map(Expr::Name),
        any::<bool>().prop_map(Expr::Bool),
        (
            prop::sample::select(vec![
                Comparison::Equal,
                Comparison::NotEqual,
                Comparison::Less,
                Comparison::LessOrEqual,
                Comparison::Greater,
                Comparison::GreaterOrEqual
            ]),
            value(),
            value()
        )
            .prop_map(|(comparison, left, right)| Expr::Compare(comparison, Box::new([left, right]))),
        (name(), text()).prop_map(|(left, right)| {
            Expr::Compare(Comparison::Equal, Box::new([Expr::Name(left), Expr::Text(right)]))
        }),
        (value(), any::<bool>())
            .prop_map(|(subject, negated)| Expr::IsNull { subject: Box::new(subject), negated }),
        (value(), text(), prop::option::of(any::<char>()), any::<bool>()).prop_map(
            |(subject, pattern, escape, negated)| Expr::Like {
                subject: Box::new(subject),
                pattern: Box::new(Like::new(&pattern, escape)),
                negated
            }
        ),
        (value(), value(), value(), any::<bool>()).prop_map(|(subject, low, high, negated)| Expr::Between {
            operands: Box::new([subject, low, high]),
            negated
        }),
        (name(), prop::collection::vec(text(), 1..12), any::<bool>())
            .prop_map(|(name, texts, negated)| Expr::In { name, choices: Choices::new(texts), negated }),
        (pattern(), value())
            .prop_map(|(pattern, subject)| Expr::Regex { pattern, subject: Box::new(subject) }),
        (prop::collection::vec(value(), 0..3), value()).prop_map(|(items, subject)| Expr::InList {
            list: List::Make(items.into()),
            subject: Box::new(subject)
        }),
        (value(), pattern(), -2i64..3, value()).prop_map(|(split, pattern, limit, subject)| Expr::InList {
            list: List::Split { subject: Box::new(split), pattern, limit },
            subject: Box::new(subject)
        }),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|operand| Expr::Not(Box::new(operand))),
            (inner.clone(), inner.clone()).prop_map(|(left, right)| Expr::and(left, right)),
            (inner.clone(), inner).prop_map(|(left, right)| Expr::or(left, right)),
        ]
    })
}

fn tokens() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec![
        "a",
        "b",
        "1",
        "-",
        "+",
        "*",
        "/",
        "%",
        "=",
        "<>",
        "<",
        "<=",
        ">",
        ">=",
        "(",
        ")",
        ",",
        "'x'",
        "'%_'",
        "NOT",
        "AND",
        "OR",
        "IS",
        "NULL",
        "TRUE",
        "LIKE",
        "ESCAPE",
        "'!'",
        "BETWEEN",
        "IN",
        "IN ('x')",
        "REGEX(",
        "'a*'",
        "INLIST(",
        "MAKELIST(",
        "SPLIT(",
        "REPLACE(",
        "\"q\"",
        "0x1F",
        "017",
        "1.5",
        ".5E3",
        "--",
        "/*",
        "*/",
        "\n",
        "XPATH",
        "hyphenated_props:",
        "9223372036854775808",
    ]);
    prop::collection::vec(token, 0..24).prop_map(|tokens| tokens.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_it_panic(data in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz_selector(&data);
    }

    #[test]
    fn no_run_of_tokens_makes_it_panic(text in tokens(), flags in any::<u8>()) {
        let mut data = vec![flags];
        data.extend_from_slice(text.as_bytes());
        fuzz_selector(&data);
    }

    #[test]
    fn what_is_printed_reads_back(tree in condition()) {
        let text = tree.to_string();
        let parsed = parser::Parser::parse(&text, 0, false);
        let too_many = parsed.as_ref().is_err_and(|refusal| refusal.sentence.contains("regular expressions"));
        prop_assume!(!too_many);
        prop_assert_eq!(parsed.as_ref(), Ok(&tree), "{}", text);
        let mut data = vec![1];
        data.extend_from_slice(text.as_bytes());
        fuzz_selector(&data);
    }
}
