//! `offer`, `reclaim`, `release`.

use secovia_agent_api::client::Client;
use secovia_agent_api::{Offer, OfferLine, ReclaimRequest, Reclaimed};

use crate::args::{OfferArgs, ReclaimArgs};
use crate::failure::{FAILED, Failure, tell};
use crate::output::{Table, human, print, print_json};

/// `secovia offer`.
pub(super) async fn offer(client: &Client, args: &OfferArgs) -> Result<u8, Failure> {
    let offer = client.offer().await.map_err(Failure::agent("offer"))?;
    if args.json {
        print_json(&offer)?;
    } else {
        print(&described(&offer, args.explain))?;
    }
    Ok(0)
}

fn described(offer: &Offer, explain: bool) -> String {
    let mut text = String::new();
    if offer.lending {
        let mut table = Table::new(["RESOURCE", "OFFERED", "LENT", "FREE", "RULE"]);
        for line in &offer.lines {
            table.row([
                line.resource.clone(),
                amount(line, line.offered),
                amount(line, line.lent),
                amount(line, line.offered.saturating_sub(line.lent)),
                rule(line).into(),
            ]);
        }
        text.push_str(&table.render());
    } else {
        text.push_str("nothing is lent: agent.toml has no section [reserve]\n");
    }
    text.push_str(&state(offer));
    if let Some(problem) = &offer.problem {
        text.push_str(&format!(
            "the owner's use cannot be measured: {}\n",
            crate::output::printable(problem)
        ));
    }
    if explain {
        text.push_str(&explained(offer));
    }
    text
}

/// Why it is not more, in a few words.
fn rule(line: &OfferLine) -> &str {
    match line.rule.as_str() {
        "reclaimed" => "taken back by the owner",
        "not_measured" => "the owner's use is still being measured",
        "schedule" => "the schedule",
        "cap" => "the cap",
        "spare" => "no more is spare",
        other => other,
    }
}

/// Whether it can be had now.
fn state(offer: &Offer) -> String {
    let ladder = &offer.ladder;
    match (ladder.rung.as_str(), ladder.ordered_by.as_deref()) {
        (_, Some("owner")) => {
            "the owner has taken the machine back; `secovia release` lends it again\n".into()
        }
        (_, Some("schedule")) => "no window of the schedule is open\n".into(),
        ("open", _) => String::new(),
        (rung, _) => format!(
            "the owner needs the machine: memory or I/O is {}, the measure taken is `{rung}`\n",
            ladder.scarcity
        ),
    }
}

/// The sum for each resource, line by line.
fn explained(offer: &Offer) -> String {
    let mut text = String::new();
    for line in &offer.lines {
        text.push_str(&format!("\n{}\n", line.resource));
        let spare = line
            .capacity
            .saturating_sub(line.reserve)
            .saturating_sub(line.owner)
            .saturating_sub(line.margin);
        let limit = |amount_of: Option<u64>| amount_of.map_or_else(|| "no limit".into(), |n| amount(line, n));
        for (label, value) in [
            ("  the machine has", amount(line, line.capacity)),
            ("- reserved for the owner", amount(line, line.reserve)),
            ("- used by the owner", amount(line, line.owner)),
            ("- safety margin", amount(line, line.margin)),
            ("= spare", amount(line, spare)),
            ("  the cap allows", limit(line.cap)),
            ("  the schedule allows now", limit(line.schedule)),
            (
                "  offered",
                format!("{}: {}", amount(line, line.offered), rule(line)),
            ),
        ] {
            text.push_str(&format!("  {label:26} {value}\n"));
        }
    }
    if offer.lending {
        text.push_str(&format!(
            "\nThe owner's use is what was not exceeded for 95 percent of the {} that were measured.\n",
            human::seconds(offer.measured_s)
        ));
    }
    text
}

fn amount(line: &OfferLine, amount: u64) -> String {
    match line.resource.as_str() {
        "cpu" => format!("{}.{:02}", amount / 1_000, amount % 1_000 / 10),
        _ => human::bytes(amount),
    }
}

/// `secovia reclaim`.
pub(super) async fn reclaim(client: &Client, args: &ReclaimArgs) -> Result<u8, Failure> {
    let request = ReclaimRequest {
        deadline_s: args.deadline,
    };
    let reclaimed = client
        .reclaim(&request)
        .await
        .map_err(Failure::agent("reclaim"))?;
    if args.json {
        print_json(&reclaimed)?;
    } else if reclaimed.left.is_empty() {
        print(&free(&reclaimed))?;
    }
    if reclaimed.left.is_empty() {
        return Ok(0);
    }
    tell(&format!(
        "reclaim: after {} these microVMs are still there: {}; `secovia kill` ends one, the agent goes on trying",
        human::seconds(reclaimed.took_ms / 1_000),
        reclaimed.left.join(", ")
    ));
    Ok(FAILED)
}

fn free(reclaimed: &Reclaimed) -> String {
    let ended = match reclaimed.ended {
        0 => "no microVM ran".to_string(),
        1 => "1 microVM ended".to_string(),
        n => format!("{n} microVMs ended"),
    };
    format!(
        "free after {}.{} s ({ended}); `secovia release` lends it again\n",
        reclaimed.took_ms / 1_000,
        reclaimed.took_ms % 1_000 / 100
    )
}

/// `secovia release`.
pub(super) async fn release(client: &Client) -> Result<u8, Failure> {
    client.release().await.map_err(Failure::agent("release"))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use secovia_agent_api::{Labels, LadderView};

    use super::*;

    fn ladder(rung: &str, ordered_by: Option<&str>) -> LadderView {
        LadderView {
            rung: rung.into(),
            ordered_by: ordered_by.map(Into::into),
            scarcity: "tight".into(),
        }
    }

    fn lending() -> Offer {
        let line = |resource: &str, unit: u64| OfferLine {
            resource: resource.into(),
            offered: 2 * unit,
            lent: unit,
            rule: "cap".into(),
            capacity: 8 * unit,
            reserve: unit,
            owner: unit,
            margin: unit,
            schedule: None,
            cap: Some(2 * unit),
        };
        Offer {
            lending: true,
            lines: vec![line("cpu", 1_000), line("memory", 1 << 30)],
            ladder: ladder("open", None),
            measured_s: 7_300,
            problem: None,
            labels: Labels::default(),
        }
    }

    #[test]
    fn an_offer_names_its_rule_and_the_sum_behind_it() {
        let text = described(&lending(), false);
        assert_eq!(
            text,
            "RESOURCE  OFFERED  LENT     FREE     RULE\n\
             cpu       2.00     1.00     1.00     the cap\n\
             memory    2.0 GiB  1.0 GiB  1.0 GiB  the cap\n"
        );
        let text = described(&lending(), true);
        for line in [
            "  = spare                    5.00\n",
            "    the schedule allows now  no limit\n",
            "    offered                  2.00: the cap\n",
            "95 percent of the 2 h",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }

    #[test]
    fn what_keeps_it_from_being_had_is_said() {
        let mut offer = lending();
        offer.ladder = ladder("shutdown", Some("owner"));
        assert!(described(&offer, false).contains("`secovia release` lends it again"));
        offer.ladder = ladder("closed", Some("schedule"));
        assert!(described(&offer, false).contains("no window"));
        offer.ladder = ladder("squeeze", None);
        assert!(described(&offer, false).contains("is tight, the measure taken is `squeeze`"));
        offer.problem = Some("no\n/proc".into());
        assert!(described(&offer, false).contains("measured: no?/proc\n"));
        offer.lending = false;
        assert!(described(&offer, true).starts_with("nothing is lent"));
    }

    #[test]
    fn a_reclaim_says_how_long_it_took() {
        let mut reclaimed = Reclaimed {
            took_ms: 2_345,
            deadline_ms: 30_000,
            ended: 4,
            left: Vec::new(),
        };
        assert!(free(&reclaimed).starts_with("free after 2.3 s (4 microVMs ended)"));
        reclaimed.ended = 0;
        assert!(free(&reclaimed).contains("no microVM ran"));
    }
}
