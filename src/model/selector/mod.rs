//! Message selectors (JMS 2.0 §3.8, a subset of SQL-92 conditional expressions).
