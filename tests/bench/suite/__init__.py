"""What tests/bench/compare and tests/bench/regress are made of."""
