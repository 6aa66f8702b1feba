use super::*;
use crate::testing::{assert_close, assert_same_on_any_threads, check, noise, numbers};
use candle_core::DType;
use std::ops::Range;

/// Three prefixes, shared and not: whole, cut short at either end, of several stretches, with a row that comes twice.
fn ragged(heads: usize, kv_heads: usize) -> Arc<Ragged> {
    let stretch = |start, len| Stretch { start, len };
    let query = |row, stretches, keys| Query { row, stretches, keys };
    let stretches = vec![stretch(0, 5), stretch(7, 4), stretch(3, 13), stretch(2, 0), stretch(9, 1)];
    let queries = vec![
        query(0, 0..2, 0..9),
        query(3, 0..2, 0..1),
        query(1, 0..2, 3..6),
        query(1, 0..2, 7..9),
        query(2, 2..5, 0..14),
        query(2, 1..3, 2..16),
        query(0, 4..5, 0..1),
    ];
    Arc::new(Ragged { queries, stretches, kv_heads, heads, scale: 0.3, softcap: None })
}

#[test]
fn values_and_slopes_are_those_of_the_formula() {
    for (heads, kv_heads, head_dim) in [(1, 1, 1), (2, 2, 3), (4, 2, 9), (2, 1, 8), (1, 1, 44)] {
        let inputs = [
            noise((4, heads * head_dim), 1),
            (noise((16, kv_heads * head_dim), 2) * 3.0).unwrap(),
            noise((16, kv_heads * head_dim), 3),
        ];
        for softcap in [None, Some(0.7)] {
            let ragged = Arc::new(Ragged { softcap, ..(*ragged(heads, kv_heads)).clone() });
            // Scores below 30 from up to 44 products; an absolute 3e-6 in a score is a relative one after.
            check(&inputs, 1e-5, |x| ragged.attend(&x[0], &x[1], &x[2]));
        }
    }
}

#[test]
fn a_thousand_keys_and_far_scores_are_right() {
    let (heads, kv_heads, head_dim, rows) = (4, 2, 64, 1100);
    let stretches = vec![Stretch { start: 50, len: 1000 }, Stretch { start: 0, len: 30 }];
    let queries = (0..20).map(|row| Query { row, stretches: 0..2, keys: 0..1 + 54 * row }).collect();
    let ragged = Arc::new(Ragged { queries, stretches, kv_heads, heads, scale: 1.0, softcap: None });
    for scale in [1.0, 30.0] {
        let query = (noise((20, heads * head_dim), 1) * scale).unwrap();
        let (key, value) = (noise((rows, kv_heads * head_dim), 2), noise((rows, kv_heads * head_dim), 3));
        let [wide_query, wide_key, wide_value] =
            [&query, &key, &value].map(|x| x.to_dtype(DType::F64).unwrap());
        let exact = ragged.attend(&wide_query, &wide_key, &wide_value).unwrap();
        // Scores reach 300 at the larger scale, where an f32 is good to 3e-5.
        assert_close(&ragged.attend(&query, &key, &value).unwrap(), &exact, 2e-6 * scale);
    }
}

#[test]
fn threads_do_not_matter() {
    let (rows, width) = (300, 4 * 24);
    let stretches = vec![Stretch { start: 0, len: 200 }, Stretch { start: 150, len: 150 }];
    let queries = (0..rows).map(|row| Query { row, stretches: row / 170..2, keys: 0..1 + row / 2 }).collect();
    let ragged = Arc::new(Ragged { queries, stretches, kv_heads: 4, heads: 4, scale: 0.2, softcap: None });
    let x = noise((rows as usize, width), 1);
    assert_same_on_any_threads(&x, |x| ragged.attend(x, x, x));
}

/// A window over a long prompt, whose blocks and groups start anywhere.
#[test]
fn windows_are_right_wherever_they_start() {
    let (rows, width) = (150u32, 2 * 12);
    let queries = (0..rows)
        .map(|row| Query { row, stretches: 0..2, keys: (row + 1).saturating_sub(37)..row + 1 })
        .collect();
    let stretches = vec![Stretch { start: 0, len: 70 }, Stretch { start: 70, len: 80 }];
    let ragged = Arc::new(Ragged { queries, stretches, kv_heads: 2, heads: 2, scale: 0.5, softcap: None });
    let x = noise((rows as usize, width), 1);
    let wide = x.to_dtype(DType::F64).unwrap();
    let exact = ragged.attend(&wide, &wide, &wide).unwrap();
    assert_close(&ragged.attend(&x, &x, &x).unwrap(), &exact, 1e-6);
    assert_same_on_any_threads(&x, |x| ragged.attend(x, x, x));
}

#[test]
fn neighbours_do_not_matter() {
    let (query, table) = (noise((4, 2 * 13), 1), noise((16, 2 * 13), 2));
    let all = ragged(2, 2);
    let together = all.attend(&query, &table, &table).unwrap();
    for (i, one) in all.queries.iter().enumerate() {
        let alone = Arc::new(Ragged { queries: vec![one.clone()], ..(*all).clone() });
        let alone = alone.attend(&query, &table, &table).unwrap();
        assert_eq!(numbers(&alone), numbers(&together.narrow(0, i, 1).unwrap()));
    }
}

#[test]
fn what_is_frozen_gets_no_gradient() {
    let (query, key, value) = (noise((4, 6), 1), noise((16, 6), 2), noise((16, 6), 3));
    let query = candle_core::Var::from_tensor(&query).unwrap();
    let mixed = ragged(2, 2).attend(&query, &key, &value).unwrap();
    let grads = mixed.sum_all().unwrap().backward().unwrap();
    assert!(grads.get(&query).is_some() && grads.get(&key).is_none() && grads.get(&value).is_none());
}

/// Tables in two parts: the same to the bit as in one, and so are the slopes of the part that has some.
#[test]
fn rows_beside_a_table_are_rows_of_it() {
    for own in [1, 5, 15] {
        let (query, key, value) = (noise((4, 12), 1), noise((16, 6), 2), noise((16, 6), 3));
        let ragged = ragged(4, 2);
        let [query, key, value] = [query, key, value].map(|x| candle_core::Var::from_tensor(&x).unwrap());
        let parts = |x: &Tensor| {
            let rest = x.narrow(0, own, 16 - own).unwrap().detach();
            (candle_core::Var::from_tensor(&x.narrow(0, 0, own).unwrap()).unwrap(), rest)
        };
        let ((keys, more_keys), (values, more_values)) = (parts(&key), parts(&value));
        let whole = ragged.attend(&query, &key, &value).unwrap();
        let beside = ragged.attend_beside(&query, (&keys, &values), (&more_keys, &more_values)).unwrap();
        assert_eq!(numbers(&beside), numbers(&whole));
        let slopes = |y: &Tensor| (y * noise((7, 12), 4)).unwrap().sum_all().unwrap().backward().unwrap();
        let (ours, theirs) = (slopes(&beside), slopes(&whole));
        assert_eq!(numbers(ours.get(&query).unwrap()), numbers(theirs.get(&query).unwrap()));
        for (part, table) in [(&keys, &key), (&values, &value)] {
            let first = theirs.get(table).unwrap().narrow(0, 0, own).unwrap();
            assert_eq!(numbers(ours.get(part).unwrap()), numbers(&first));
        }
        // Nothing that has slopes, and tables that do not fit.
        let frozen = (&keys.as_tensor().detach(), &values.as_tensor().detach());
        let plain = ragged.attend_beside(&query, frozen, (&more_keys, &more_values)).unwrap();
        assert_eq!(numbers(&plain), numbers(&whole));
        assert!(
            ragged.attend_beside(&query, (&keys, &values), (&more_keys, &noise((16 - own, 5), 1))).is_err()
        );
        assert!(
            ragged.attend_beside(&query, (&keys, &values), (&noise((1, 6), 1), &noise((1, 6), 1))).is_err()
                || own == 15
        );
    }
}

#[test]
fn no_queries_are_no_rows() {
    let none = Arc::new(Ragged { queries: vec![], ..(*ragged(2, 2)).clone() });
    let mixed = none.attend(&noise((4, 6), 1), &noise((16, 6), 2), &noise((16, 6), 3)).unwrap();
    assert_eq!(mixed.dims(), [0, 6]);
}

#[test]
fn refuses_what_does_not_fit() {
    let good = ragged(2, 2);
    let (query, table) = (noise((4, 6), 1), noise((16, 6), 2));
    let refused = |change: fn(&mut Ragged)| {
        let mut bad = (*good).clone();
        change(&mut bad);
        Arc::new(bad).attend(&query, &table, &table).is_err()
    };
    assert!(!refused(|_| ()));
    assert!(refused(|bad| bad.queries[1].row = 4));
    assert!(refused(|bad| bad.queries[1].keys = 0..0));
    assert!(refused(|bad| bad.queries[1].keys = 3..10));
    assert!(refused(|bad| bad.queries[1].keys = Range { start: 3, end: 2 }));
    assert!(refused(|bad| bad.queries[1].stretches = 4..6));
    assert!(refused(|bad| bad.queries[1].stretches = Range { start: 3, end: 2 }));
    assert!(refused(|bad| bad.stretches[2].len = 14));
    assert!(refused(|bad| bad.stretches[2].start = u32::MAX));
    assert!(refused(|bad| bad.kv_heads = 0));
    assert!(refused(|bad| bad.heads = 3));
    assert!(refused(|bad| bad.kv_heads = 1));
    assert!(good.attend(&query, &table, &noise((15, 6), 1)).is_err());
}
