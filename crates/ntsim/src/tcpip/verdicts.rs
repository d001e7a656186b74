//! The record of verdicts: a table for people, one JSON object a line for programs.

use foldhash::HashMap;
use serde::Serialize;
use shim::flow::{FlowKey, Owner};
use shim::layer::Direction;
use shim::packet::{Packet, protocol};
use shim::stack::{Decision, Stack, Verdict};
use std::io::{self, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Which packets are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Only packets that open a flow or do not travel on.
    Decisions,
    /// Every packet.
    Packets,
}

/// One line of the JSON record.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    /// The packet's number, counted from 1.
    packet: u64,
    /// Seconds since the start.
    time: f64,
    verdict: &'static str,
    /// The layer and filter that decided.
    layer: Option<&'static str>,
    filter_id: Option<u64>,
    /// The packet opened a flow.
    opened: bool,
    direction: &'static str,
    protocol: u8,
    local_address: Option<IpAddr>,
    local_port: Option<u16>,
    remote_address: Option<IpAddr>,
    remote_port: Option<u16>,
    process_id: Option<u32>,
    app_id: Option<&'a str>,
}

/// What the packets of one row of the table have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Row {
    app: Option<Arc<str>>,
    protocol: u8,
    remote: IpAddr,
    remote_port: u16,
    direction: Direction,
    verdict: &'static str,
    layer: Option<&'static str>,
    filter_id: u64,
}

/// Sums over all packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Packets seen.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets that travelled on.
    pub forwarded: u64,
    /// Packets dropped silently.
    pub dropped: u64,
    /// Packets refused with an answer to the sender.
    pub refused: u64,
    /// Packets whose connection was aborted.
    pub aborted: u64,
    /// Fragments whose datagram stayed incomplete or was blocked, and packets that a callout pended.
    pub held: u64,
    /// Packets that could not be read.
    pub malformed: u64,
    /// Flows authorized.
    pub flows: u64,
    /// Packets that a driver injected.
    pub injected: u64,
    /// Segments whose bytes went on in the stack's own segments.
    pub relayed: u64,
}

/// The most rows of the table; packets of further rows are only counted.
const ROWS_LIMIT: usize = 100_000;

/// Records verdicts.
pub struct Verdicts {
    json: Option<(Box<dyn Write + Send>, Detail)>,
    rows: HashMap<Row, u64>,
    /// Sums.
    pub totals: Totals,
    error: Option<io::Error>,
}

impl std::fmt::Debug for Verdicts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verdicts").field("totals", &self.totals).finish_non_exhaustive()
    }
}

impl Verdicts {
    /// A record that writes JSON lines to `json`, if given.
    #[must_use]
    pub fn new(json: Option<(Box<dyn Write + Send>, Detail)>) -> Self {
        Self { json, rows: HashMap::default(), totals: Totals::default(), error: None }
    }

    /// Records what `stack` has just decided about `packet`.
    pub fn note<F>(
        &mut self,
        stack: &Stack<F>,
        packet: &[u8],
        direction: Direction,
        decision: &Decision,
        time: Duration,
    ) {
        let totals = &mut self.totals;
        totals.packets += 1;
        totals.bytes += packet.len() as u64;
        let (count, name) = match decision.verdict {
            Verdict::Forward => {
                // The fragments that waited for this one go with it.
                let pieces = stack.output.earlier.len() as u64;
                totals.held = totals.held.saturating_sub(pieces);
                totals.forwarded += pieces;
                (&mut totals.forwarded, "forward")
            }
            Verdict::Drop => (&mut totals.dropped, "drop"),
            Verdict::Refuse => (&mut totals.refused, "refuse"),
            Verdict::Abort => (&mut totals.aborted, "abort"),
            Verdict::Hold => (&mut totals.held, "hold"),
            Verdict::Relayed => (&mut totals.relayed, "relay"),
            Verdict::Malformed(_) => (&mut totals.malformed, "malformed"),
        };
        *count += 1;
        totals.flows += u64::from(decision.opened);
        let telling =
            decision.opened || !matches!(decision.verdict, Verdict::Forward | Verdict::Hold | Verdict::Relayed);
        let wanted = matches!(self.json, Some((_, Detail::Packets)));
        if telling || wanted {
            self.tell(stack, packet, direction, decision, time, name, telling);
        }
    }

    /// For a packet from this machine to itself, picks the end whose decision [`Self::note`] records. A flow that the
    /// other end opened is recorded here.
    pub(crate) fn note_sent<F>(
        &mut self,
        stack: &Stack<F>,
        packet: &[u8],
        sent: Decision,
        arrived: Option<Decision>,
        time: Duration,
    ) -> (Direction, Decision) {
        let Some(arrived) = arrived else { return (Direction::Outbound, sent) };
        if sent.opened {
            self.totals.flows += 1;
            self.tell(stack, packet, Direction::Outbound, &sent, time, "forward", true);
        }
        (Direction::Inbound, arrived)
    }

    #[allow(clippy::too_many_arguments, reason = "the cold half of `note`")]
    #[cold]
    fn tell<F>(
        &mut self,
        stack: &Stack<F>,
        packet: &[u8],
        direction: Direction,
        decision: &Decision,
        time: Duration,
        verdict: &'static str,
        telling: bool,
    ) {
        let parsed = Packet::parse(packet).ok();
        let key = parsed.as_ref().map(|parsed| FlowKey::of(parsed, direction));
        let owner: Option<Arc<Owner>> =
            stack.output.owner.clone().or_else(|| key.as_ref().and_then(|key| stack.owner(key)));
        let layer = key.as_ref().zip(decision.by).map(|(key, by)| by.layer.name(key.version()));
        let filter_id = decision.by.map(|by| by.filter_id);
        if let Some((writer, _)) = &mut self.json {
            let line = Line {
                packet: self.totals.packets,
                time: time.as_secs_f64(),
                verdict,
                layer,
                filter_id,
                opened: decision.opened,
                direction: direction.name(),
                protocol: parsed.map_or(0, |parsed| parsed.protocol),
                local_address: key.map(|key| key.local()),
                local_port: key.map(|key| key.local_port),
                remote_address: key.map(|key| key.remote()),
                remote_port: key.map(|key| key.remote_port),
                process_id: owner.as_ref().map(|owner| owner.pid),
                app_id: owner.as_ref().map(|owner| &*owner.app_id),
            };
            let written = serde_json::to_writer(&mut *writer, &line)
                .map_err(io::Error::from)
                .and_then(|()| writer.write_all(b"\n"));
            if let Err(error) = written {
                self.error.get_or_insert(error);
            }
        }
        if let (true, Some(key)) = (telling, key) {
            let row = Row {
                app: owner.map(|owner| owner.app_id.clone()),
                protocol: key.protocol,
                remote: key.remote(),
                remote_port: key.remote_port,
                direction,
                verdict,
                layer,
                filter_id: filter_id.unwrap_or(0),
            };
            self.count(row, 1);
        }
    }

    /// Adds another record's sums and rows to this one.
    pub(crate) fn add(&mut self, other: Self) {
        // Destructured, so that a new sum cannot be forgotten.
        let Totals { packets, bytes, forwarded, dropped, refused, aborted, held, malformed, flows, injected, relayed } =
            other.totals;
        let to = &mut self.totals;
        to.packets += packets;
        to.bytes += bytes;
        to.forwarded += forwarded;
        to.dropped += dropped;
        to.refused += refused;
        to.aborted += aborted;
        to.held += held;
        to.malformed += malformed;
        to.flows += flows;
        to.injected += injected;
        to.relayed += relayed;
        for (row, count) in other.rows {
            self.count(row, count);
        }
    }

    /// Adds to a row of the table.
    fn count(&mut self, row: Row, by: u64) {
        if self.rows.len() < ROWS_LIMIT || self.rows.contains_key(&row) {
            *self.rows.entry(row).or_default() += by;
        }
    }

    /// Writes out what is buffered.
    ///
    /// # Errors
    /// The first error of writing the JSON record.
    pub fn finish(&mut self) -> io::Result<()> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        self.json.as_mut().map_or(Ok(()), |(writer, _)| writer.flush())
    }

    /// Writes the table: who reached or tried to reach whom, and who decided, the most frequent first.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_table(&self, out: &mut dyn Write, limit: usize) -> io::Result<()> {
        let mut rows: Vec<(&Row, u64)> = self.rows.iter().map(|(row, count)| (row, *count)).collect();
        rows.sort_by(|(a, n), (b, m)| {
            m.cmp(n).then_with(|| (a.remote, a.remote_port, a.verdict).cmp(&(b.remote, b.remote_port, b.verdict)))
        });
        let cells: Vec<[String; 7]> = rows.iter().take(limit).map(|(row, count)| cells(row, *count)).collect();
        let head = ["times", "verdict", "direction", "remote", "program", "layer", "filter"].map(str::to_owned);
        let width = |column: usize| {
            cells.iter().chain([&head]).map(|cells| cells[column].chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..7).map(width).collect();
        for line in [&head].into_iter().chain(&cells) {
            let mut text = String::new();
            for (cell, width) in line.iter().zip(&widths) {
                text.push_str(&format!("{cell:<width$}  "));
            }
            writeln!(out, "{}", text.trim_end())?;
        }
        if rows.len() > limit {
            writeln!(out, "... and {} more", rows.len() - limit)?;
        }
        let t = &self.totals;
        writeln!(
            out,
            "{} packets ({} of them injected), {} bytes, {} flows: {} forwarded, {} held, {} dropped, {} refused, \
             {} aborted, {} malformed",
            t.packets,
            t.injected,
            t.bytes,
            t.flows,
            t.forwarded + t.relayed,
            t.held,
            t.dropped,
            t.refused,
            t.aborted,
            t.malformed
        )
    }
}

fn cells(row: &Row, count: u64) -> [String; 7] {
    let name = match row.protocol {
        protocol::TCP => "tcp".to_owned(),
        protocol::UDP => "udp".to_owned(),
        protocol::ICMP | protocol::ICMPV6 => "icmp".to_owned(),
        number => format!("protocol {number}"),
    };
    let remote = match (row.protocol, row.remote) {
        (protocol::TCP | protocol::UDP, IpAddr::V4(v4)) => format!("{v4}:{} {name}", row.remote_port),
        (protocol::TCP | protocol::UDP, IpAddr::V6(v6)) => format!("[{v6}]:{} {name}", row.remote_port),
        (_, address) => format!("{address} {name}"),
    };
    let program = row.app.as_deref().map_or("-", |app| app.rsplit('\\').next().unwrap_or(app));
    [
        count.to_string(),
        if row.verdict == "forward" { "permit".to_owned() } else { row.verdict.to_owned() },
        row.direction.name().to_owned(),
        remote,
        program.to_owned(),
        row.layer.unwrap_or("-").to_owned(),
        if row.filter_id == 0 { "-".to_owned() } else { row.filter_id.to_string() },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;
    use parking_lot::Mutex;
    use shim::layer::Layer;
    use shim::stack::{By, Config};

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn udp() -> Vec<u8> {
        let mut bytes = Vec::new();
        PacketBuilder::ipv4([10, 0, 0, 1], [203, 0, 113, 66], 9).udp(5000, 53).write(&mut bytes, &[]).unwrap();
        bytes
    }

    const REFUSED: Decision = Decision {
        verdict: Verdict::Refuse,
        by: Some(By { layer: Layer::AleAuthConnect, filter_id: 9 }),
        opened: false,
    };
    const FORWARDED: Decision = Decision { verdict: Verdict::Forward, by: None, opened: false };

    #[test]
    fn decisions_are_told_and_the_rest_counted() {
        let json = Shared::default();
        let mut verdicts = Verdicts::new(Some((Box::new(json.clone()), Detail::Decisions)));
        let mut stack = Stack::<u64>::new(Config { pick_up: false });
        stack.output.owner =
            Some(Arc::new(Owner { pid: 5, uid: None, app_id: r"\device\harddiskvolume1\usr\bin\dig".into() }));
        for decision in [FORWARDED, REFUSED, REFUSED] {
            verdicts.note(&stack, &udp(), Direction::Outbound, &decision, Duration::from_millis(1500));
        }
        verdicts.finish().unwrap();
        let text = String::from_utf8(json.0.lock().clone()).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["verdict"], "refuse");
        assert_eq!(lines[0]["layer"], "ALE_AUTH_CONNECT_V4");
        assert_eq!(lines[0]["remoteAddress"], "203.0.113.66");
        assert_eq!((&lines[0]["filterId"], &lines[0]["processId"]), (&9.into(), &5.into()));
        let mut table = Vec::new();
        verdicts.write_table(&mut table, 10).unwrap();
        let table = String::from_utf8(table).unwrap();
        let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row, ["2", "refuse", "outbound", "203.0.113.66:53", "udp", "dig", "ALE_AUTH_CONNECT_V4", "9"]);
        assert!(table.contains("3 packets"), "{table}");
        assert_eq!(verdicts.totals.forwarded, 1);
    }

    #[test]
    fn every_packet_when_asked() {
        let json = Shared::default();
        let mut verdicts = Verdicts::new(Some((Box::new(json.clone()), Detail::Packets)));
        let stack = Stack::<u64>::new(Config { pick_up: false });
        verdicts.note(&stack, &udp(), Direction::Outbound, &FORWARDED, Duration::ZERO);
        assert_eq!(json.0.lock().iter().filter(|b| **b == b'\n').count(), 1);
        assert!(verdicts.rows.is_empty());
    }

    #[test]
    fn joined_records_add_every_sum() {
        let each = |n| Totals {
            packets: n,
            bytes: n,
            forwarded: n,
            dropped: n,
            refused: n,
            aborted: n,
            held: n,
            malformed: n,
            flows: n,
            injected: n,
            relayed: n,
        };
        let of = |totals| Verdicts { totals, ..Verdicts::new(None) };
        let mut joined = of(each(1));
        joined.add(of(each(2)));
        assert_eq!(joined.totals, each(3));
    }
}
