#![allow(missing_docs)]
use syncline::Rules;
use syncline_testkit::sim::{Plan, run};

#[test]
fn explore() {
    let n: u64 = std::env::var("N").ok().and_then(|t| t.parse().ok()).unwrap_or(300);
    let all: Vec<(&str, Rules)> = vec![
        ("groups_are_checked", Rules { groups_are_checked: false, ..Rules::ALL }),
        ("peers_are_members", Rules { peers_are_members: false, ..Rules::ALL }),
        ("authors_are_members", Rules { authors_are_members: false, ..Rules::ALL }),
        ("devices_are_checked", Rules { devices_are_checked: false, ..Rules::ALL }),
        ("streams_have_no_holes", Rules { streams_have_no_holes: false, ..Rules::ALL }),
        ("chains_are_checked", Rules { chains_are_checked: false, ..Rules::ALL }),
        ("causes_come_first", Rules { causes_come_first: false, ..Rules::ALL }),
        ("values_are_checked", Rules { values_are_checked: false, ..Rules::ALL }),
        ("drift_is_held", Rules { drift_is_held: false, ..Rules::ALL }),
        ("clock_follows", Rules { clock_follows: false, ..Rules::ALL }),
        ("higher_stamp_wins", Rules { higher_stamp_wins: false, ..Rules::ALL }),
        ("epochs_are_kept_apart", Rules { epochs_are_kept_apart: false, ..Rules::ALL }),
        ("values_are_kept", Rules { values_are_kept: false, ..Rules::ALL }),
        ("unmerged_lies_beside", Rules { unmerged_lies_beside: false, ..Rules::ALL }),
        ("joiner_waits", Rules { joiner_waits: false, ..Rules::ALL }),
        ("restores_are_noticed", Rules { restores_are_noticed: false, ..Rules::ALL }),
        ("acks_are_durable", Rules { acks_are_durable: false, ..Rules::ALL }),
        ("pulls_exclude", Rules { pulls_exclude: false, ..Rules::ALL }),
        ("pages_are_in_stamp_order", Rules { pages_are_in_stamp_order: false, ..Rules::ALL }),
    ];
    for (name, rules) in all {
        let mut bad = 0;
        let mut first = None;
        for seed in 1..=n {
            if let Err(f) = run(&Plan::generate(seed), rules) {
                bad += 1;
                first.get_or_insert((seed, f.property));
            }
        }
        println!("{name}: {bad} of {n}, {first:?}");
    }
}
