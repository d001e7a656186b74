//! Guesses the language of an export's labels from a few words, only to explain why it is not read.

/// Words that begin rules in `netsh advfirewall` or head columns, by language.
const LABELS: [(&str, &[&str]); 9] = [
    ("German", &["regelname", "anzeigename", "aktiviert", "richtung", "aktion", "protokoll", "gruppierung"]),
    ("French", &["nom de la règle", "nom complet", "activé", "activée", "sens", "direction :", "protocole"]),
    ("Spanish", &["nombre de regla", "habilitada", "habilitado", "dirección", "acción", "protocolo"]),
    ("Italian", &["nome regola", "abilitata", "abilitato", "direzione", "azione", "protocollo"]),
    ("Portuguese", &["nome da regra", "habilitada", "direção", "ação"]),
    ("Dutch", &["regelnaam", "ingeschakeld", "richting", "actie"]),
    ("Polish", &["nazwa reguły", "włączone", "kierunek", "akcja"]),
    ("Russian", &["имя правила", "включено", "направление", "действие"]),
    ("Japanese", &["規則名", "有効", "方向", "操作"]),
];

/// The language of a label, if it is one of those.
pub(super) fn of_label(label: &str) -> Option<&'static str> {
    let label = label.trim().trim_end_matches(':').trim().to_lowercase();
    LABELS.iter().find(|(_, words)| words.contains(&label.as_str())).map(|(language, _)| *language)
}
