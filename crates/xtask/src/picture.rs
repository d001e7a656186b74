//! The picture of docs/driver.md: where in the stack the driver is asked, made from [`LAYERS`].

use sluice_protocol::object::{Carried, LAYERS, Layer, Point, Role};
use svg::{
    Document, Node,
    node::element::{Line, Rectangle, Text},
};

const WIDTH: i32 = 1120;
const HEIGHT: i32 = 730;
const BOX: (i32, i32) = (330, 64);
/// Where the columns begin: what is sent, both ways, what is received.
const COLUMNS: [i32; 3] = [30, 395, 760];
/// Where the rows begin.
const ROWS: [i32; 7] = [70, 160, 250, 340, 430, 520, 610];

/// The first and last column and the row of a layer. A path leads down the first column and up the last.
const fn place(point: Point) -> (usize, usize, usize) {
    match point {
        Point::Bind => (0, 0, 0),
        Point::Listen => (2, 2, 0),
        Point::Connect => (0, 0, 1),
        Point::Established => (1, 1, 1),
        Point::Stream => (0, 2, 2),
        Point::Datagrams => (0, 2, 3),
        Point::OutboundTransport => (0, 0, 4),
        Point::Accept => (2, 2, 4),
        Point::OutboundIcmpError => (0, 0, 5),
        Point::InboundDiscard => (1, 1, 5),
        Point::InboundTransport => (2, 2, 5),
        Point::Forward => (1, 1, 6),
    }
}

/// Whose calls come to a layer, for the last line of its box.
fn whose(layer: &Layer) -> &'static str {
    match (layer.role, layer.carried) {
        (Role::Observe, _) => "observes",
        (Role::Decide, Carried::None) => "decides",
        (Role::Decide, Carried::EveryFlow) => "with the flow's context",
        (Role::Decide, Carried::LookedAtTcp) => "TCP both ways, only where a name may decide",
        (Role::Decide, Carried::LookedAtUdp) => "UDP both ways, only where a name may decide",
    }
}

fn text(x: i32, y: i32, class: &str, content: &str) -> Text {
    Text::new(content).set("x", x).set("y", y).set("class", class)
}

fn arrow(document: &mut Document, from: (i32, i32), to: (i32, i32)) {
    let line = Line::new().set("x1", from.0).set("y1", from.1).set("x2", to.0).set("y2", to.1);
    document.append(line.set("marker-end", "url(#end)").set("class", "way"));
}

/// The picture, as text that ends with a line end.
#[must_use]
pub fn draw() -> String {
    let mut document = Document::new().set("viewBox", (0, 0, WIDTH, HEIGHT)).set("role", "img");
    document.append(svg::node::Blob::new(
        "<title>Where sluice.sys is asked</title><style>text{font:15px sans-serif;fill:#222}.name{font:bold 15px \
         monospace}.about{font-size:12px}.whose{font-size:11px;fill:#666}.end{text-anchor:middle}.decides{fill:#e6f0fa;\
         stroke:#3a6ea5}.observes{fill:#eee;stroke:#888}.way{stroke:#555;stroke-width:2}</style><defs><marker id=\"end\" \
         viewBox=\"0 0 10 10\" refX=\"9\" refY=\"5\" markerWidth=\"7\" markerHeight=\"7\" orient=\"auto\"><path d=\"M0 0L10 \
         5L0 10z\" fill=\"#555\"/></marker></defs>",
    ));
    let middle = |column: usize| COLUMNS[column] + BOX.0 / 2;
    document.append(Rectangle::new().set("width", WIDTH).set("height", HEIGHT).set("fill", "#fff"));
    document.append(text(middle(0), 40, "end", "a program binds, connects or sends"));
    document.append(text(middle(2), 40, "end", "a program listens, or receives"));
    document.append(text(middle(0), HEIGHT - 12, "end", "to the network"));
    document.append(text(middle(2), HEIGHT - 12, "end", "from the network"));
    arrow(&mut document, (middle(0), 48), (middle(0), HEIGHT - 30));
    arrow(&mut document, (middle(2), HEIGHT - 30), (middle(2), 48));
    // What leaves the way of a packet: the flow's context, a discarded packet, a packet that is passed on.
    let side = |point: Point| ROWS[place(point).2] + BOX.1 / 2;
    arrow(&mut document, (COLUMNS[0] + BOX.0, side(Point::Connect)), (COLUMNS[1], side(Point::Established)));
    let (discard, forward) = (side(Point::InboundDiscard), side(Point::Forward));
    arrow(&mut document, (COLUMNS[2], discard), (COLUMNS[1] + BOX.0, discard));
    arrow(&mut document, (COLUMNS[1], discard), (COLUMNS[0] + BOX.0, discard));
    arrow(&mut document, (middle(2), forward), (COLUMNS[1] + BOX.0, forward));
    arrow(&mut document, (COLUMNS[1], forward), (middle(0), forward));
    for layer in &LAYERS {
        let (first, last, row) = place(layer.point);
        let (x, y, width) = (COLUMNS[first], ROWS[row], COLUMNS[last] + BOX.0 - COLUMNS[first]);
        let class = if layer.role == Role::Observe { "observes" } else { "decides" };
        let area = Rectangle::new().set("x", x).set("y", y).set("width", width).set("height", BOX.1).set("rx", 6);
        document.append(area.set("class", class));
        document.append(text(x + 10, y + 20, "name", layer.name));
        document.append(text(x + 10, y + 38, "about", layer.about));
        document.append(text(x + 10, y + 55, "whose", whose(layer)));
    }
    format!("{document}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_picture_in_the_documents_is_that_of_the_table() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/driver.svg");
        let there = std::fs::read_to_string(file).unwrap_or_default();
        assert!(there == draw(), "docs/driver.svg is not what the table says: run `cargo xtask picture`");
    }

    #[test]
    fn no_two_layers_are_in_one_place() {
        let mut places: Vec<_> = LAYERS.iter().map(|layer| place(layer.point)).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), LAYERS.len());
    }
}
