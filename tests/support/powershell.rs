//! Parses PowerShell scripts, and checks rules that a script for Windows PowerShell 5.1 must keep.
//!
//! No package registry has PowerShell for Linux, so nothing is run here. The grammar is that of 5.1: operators of
//! PowerShell 7 (`??`, `?.`, the ternary) do not parse.
#![allow(dead_code, unreachable_pub, reason = "every test program uses a part of this")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use tree_sitter::{Node, Parser, Tree};

/// The cmdlets of Windows PowerShell 5.1 that a script may use, with the parameters that both 5.1 and 7 have.
const CMDLETS: &[(&str, &[&str])] = &[
    ("Add-Type", &["AssemblyName"]),
    ("Compare-Object", &["Property"]),
    ("ConvertFrom-Json", &[]),
    ("ConvertTo-Csv", &["NoTypeInformation"]),
    ("ConvertTo-Json", &[]),
    ("Copy-Item", &["LiteralPath", "Path", "Destination", "Recurse"]),
    ("Dismount-DiskImage", &["ImagePath"]),
    ("Dismount-VHD", &["Path"]),
    ("Expand-WindowsImage", &["ImagePath", "Index", "ApplyPath"]),
    ("ForEach-Object", &[]),
    ("Format-Volume", &["FileSystem"]),
    ("Get-AuthenticodeSignature", &["LiteralPath"]),
    ("Get-ChildItem", &["Path", "Filter", "Recurse", "ErrorAction"]),
    ("Get-CimInstance", &["Namespace", "ClassName"]),
    ("Get-Date", &["Format"]),
    ("Get-Disk", &[]),
    ("Get-FileHash", &["LiteralPath"]),
    ("Get-Item", &["LiteralPath"]),
    ("Get-NetAdapter", &[]),
    ("Get-NetFirewallAddressFilter", &[]),
    ("Get-NetFirewallApplicationFilter", &[]),
    ("Get-NetFirewallInterfaceFilter", &[]),
    ("Get-NetFirewallInterfaceTypeFilter", &[]),
    ("Get-NetFirewallPortFilter", &[]),
    ("Get-NetFirewallRule", &[]),
    ("Get-NetFirewallSecurityFilter", &[]),
    ("Get-NetFirewallServiceFilter", &[]),
    ("Get-Partition", &[]),
    ("Get-Service", &["Name"]),
    ("Get-VM", &["Name"]),
    ("Get-VMSwitch", &[]),
    ("Get-Volume", &[]),
    ("Initialize-Disk", &["Number", "PartitionStyle"]),
    ("Join-Path", &[]),
    ("Mount-DiskImage", &["ImagePath", "PassThru"]),
    ("Mount-VHD", &["Path", "Passthru"]),
    ("New-Item", &["ItemType", "Force", "Path"]),
    ("New-NetFirewallRule", &["Name", "DisplayName", "Direction", "Action", "Protocol", "LocalPort", "InterfaceAlias"]),
    ("New-NetIPAddress", &["InterfaceIndex", "InterfaceAlias", "IPAddress", "PrefixLength"]),
    ("New-Object", &[]),
    ("New-Partition", &["DiskNumber", "Size", "UseMaximumSize", "AssignDriveLetter"]),
    ("New-VHD", &["Path", "SizeBytes", "Dynamic"]),
    ("New-VM", &["Name", "Generation", "MemoryStartupBytes", "VHDPath", "SwitchName"]),
    ("New-VMSwitch", &["Name", "SwitchType"]),
    ("Read-Host", &[]),
    ("Remove-Item", &["LiteralPath"]),
    ("Remove-NetFirewallRule", &[]),
    ("Remove-VM", &["Name", "Force"]),
    ("Remove-VMSwitch", &["Force"]),
    ("Restart-Computer", &["Force"]),
    ("Select-Object", &["First"]),
    ("Set-Partition", &["GptType"]),
    ("Set-StrictMode", &["Version"]),
    ("Set-VM", &["Name", "AutomaticCheckpointsEnabled"]),
    ("Set-VMFirmware", &["VMName", "EnableSecureBoot"]),
    ("Start-Sleep", &["Seconds", "Milliseconds"]),
    ("Start-VM", &["Name"]),
    ("Stop-Computer", &["Force"]),
    ("Stop-VM", &["Name", "TurnOff", "Force"]),
    ("Test-Path", &["LiteralPath"]),
    ("Where-Object", &[]),
    ("Write-Host", &[]),
];

/// Variables that PowerShell itself sets.
const AUTOMATIC: &[&str] = &["_", "null", "true", "false", "psscriptroot", "psversiontable", "erroractionpreference"];

/// A script and its tree.
pub struct Script {
    pub name: String,
    pub text: String,
    tree: Tree,
}

/// A call of a command: its name, the values without a parameter's name, and the names of parameters.
pub struct Call<'a> {
    pub name: String,
    pub arguments: Vec<Node<'a>>,
    pub parameters: Vec<String>,
    pub node: Node<'a>,
}

impl Script {
    pub fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self::parse(&path.file_name().expect("a file").to_string_lossy(), &text)
    }

    pub fn parse(name: &str, text: &str) -> Self {
        let mut parser = Parser::new();
        parser.set_language(&tree_sitter_powershell::LANGUAGE.into()).expect("the grammar fits the library");
        let tree = parser.parse(text, None).expect("a tree");
        Self { name: name.to_owned(), text: text.to_owned(), tree }
    }

    pub fn root(&self) -> Node<'_> {
        self.tree.root_node()
    }

    pub fn of(&self, node: Node<'_>) -> &str {
        &self.text[node.byte_range()]
    }

    fn place(&self, node: Node<'_>) -> String {
        let start = node.start_position();
        format!("{}:{}:{}", self.name, start.row + 1, start.column + 1)
    }

    /// Functions, by name in lower case.
    pub fn functions(&self) -> BTreeMap<String, Node<'_>> {
        let definitions = every(self.root(), "function_statement");
        definitions.into_iter().map(|node| (self.of(child(node, "function_name")).to_lowercase(), node)).collect()
    }

    /// The names of the script's own parameters, in lower case.
    pub fn script_parameters(&self) -> BTreeSet<String> {
        let blocks = children(self.root()).into_iter().filter(|child| child.kind() == "param_block");
        blocks
            .flat_map(|block| every(block, "script_parameter"))
            .map(|parameter| self.of(child(parameter, "variable")).trim_start_matches('$').to_lowercase())
            .collect()
    }

    /// A function's parameters, and for each whether it is a switch.
    fn parameters(&self, function: Node<'_>) -> Vec<(String, bool)> {
        children(function)
            .into_iter()
            .filter(|child| child.kind() == "function_parameter_declaration")
            .flat_map(|declaration| every(declaration, "script_parameter"))
            .map(|parameter| {
                let name = self.of(child(parameter, "variable")).trim_start_matches('$').to_lowercase();
                (name, self.of(parameter).contains("[switch]"))
            })
            .collect()
    }

    pub fn call<'a>(&self, node: Node<'a>) -> Option<Call<'a>> {
        let name = self.of(node.child(0)?).to_owned();
        let (mut arguments, mut parameters) = (Vec::new(), Vec::new());
        if let Some(elements) = children(node).into_iter().find(|child| child.kind() == "command_elements") {
            for element in children(elements) {
                match element.kind() {
                    "command_argument_sep" => {}
                    "command_parameter" => parameters.push(self.of(element).trim_start_matches('-').to_owned()),
                    _ => arguments.push(element),
                }
            }
        }
        Some(Call { name, arguments, parameters, node })
    }

    /// The commands below a node, in text order.
    pub fn calls<'a>(&self, node: Node<'a>) -> Vec<Call<'a>> {
        every(node, "command").into_iter().filter_map(|command| self.call(command)).collect()
    }

    /// The commands below a node, where calls of the script's own functions are replaced by the functions' commands.
    pub fn flat<'a>(&'a self, node: Node<'a>) -> Vec<Call<'a>> {
        let functions = self.functions();
        let mut flat = Vec::new();
        for call in self.calls(node) {
            let body = functions.get(&call.name.to_lowercase()).copied();
            flat.push(call);
            if let Some(body) = body {
                flat.extend(self.flat(child(body, "script_block")));
            }
        }
        flat
    }

    /// The text assigned to a variable at the top of the script: string literals, joined.
    pub fn constant(&self, name: &str) -> String {
        let assigned = every(self.root(), "assignment_expression")
            .into_iter()
            .find(|node| self.of(child(*node, "left_assignment_expression")) == name)
            .unwrap_or_else(|| panic!("{} assigns nothing to {name}", self.name));
        let literals = every(assigned, "string_literal");
        if literals.is_empty() {
            return self.of(children(assigned).pop().expect("a value")).trim().to_owned();
        }
        literals.into_iter().map(|literal| self.literal(literal)).collect()
    }

    /// The value of a string literal without variables in it, or its text between the quotes.
    pub fn literal(&self, node: Node<'_>) -> String {
        let text = self.of(node);
        if let Some(inner) = text.strip_prefix("@\"").and_then(|rest| rest.strip_suffix("\"@")) {
            return inner.trim_start_matches(['\r', '\n']).to_owned();
        }
        let quote = text.chars().next().expect("a quote");
        let inner = &text[1..text.len() - 1];
        match quote {
            '\'' => inner.replace("''", "'"),
            _ => inner.replace("`r", "\r").replace("`n", "\n").replace("`\"", "\""),
        }
    }

    /// The broken rules, each with its place.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if !self.text.is_ascii() {
            faults.push(format!("{}: not ASCII: 5.1 reads it in the machine's code page", self.name));
        }
        for node in all(self.root()) {
            let fault = match node.kind() {
                _ if node.is_missing() || node.is_error() => "does not parse",
                "pipeline_chain_tail" => "only PowerShell 7 has this operator",
                "redirection" => "5.1 turns redirected lines of standard error into errors",
                "generic_token" if self.of(node).contains('>') => "5.1 turns redirected lines into errors",
                "command_invokation_operator" if self.of(node) == "&" && !self.calls_block(node) => {
                    "a program run by &: 5.1 and 7 decode and judge its output differently"
                }
                _ => continue,
            };
            faults.push(format!("{}: {fault}: {}", self.place(node), self.of(node)));
        }
        self.unknown_commands(&mut faults);
        self.unset_variables(&mut faults);
        faults
    }

    /// `& $Body` where `$Body` is a `[scriptblock]` parameter of the function around it.
    fn calls_block(&self, operator: Node<'_>) -> bool {
        let Some(name) = operator.parent().and_then(|command| command.named_child(1)) else { return false };
        let wanted = format!("[scriptblock] {}", self.of(name));
        let mut around = operator.parent();
        while let Some(node) = around {
            if node.kind() == "function_statement" {
                return self.of(node).contains(&wanted);
            }
            around = node.parent();
        }
        false
    }

    /// Commands that are neither functions of the script nor cmdlets in the list, and parameters that commands lack.
    fn unknown_commands(&self, faults: &mut Vec<String>) {
        let functions = self.functions();
        for call in self.calls(self.root()) {
            let name = &call.name;
            if name.starts_with(['&', '.']) || name.starts_with(|first: char| first.is_ascii_digit()) {
                continue;
            }
            let known: Vec<String> = match functions.get(&name.to_lowercase()) {
                Some(function) => {
                    let parameters = self.parameters(*function);
                    let places = parameters.iter().filter(|(_, switch)| !switch).count();
                    if call.arguments.len() > places {
                        faults.push(format!(
                            "{}: {name} takes {places} values, not {}",
                            self.place(call.node),
                            call.arguments.len()
                        ));
                    }
                    parameters.into_iter().map(|(name, _)| name).collect()
                }
                None => match CMDLETS.iter().find(|(cmdlet, _)| cmdlet.eq_ignore_ascii_case(name)) {
                    Some((_, parameters)) => parameters.iter().map(|name| name.to_lowercase()).collect(),
                    None => {
                        faults.push(format!("{}: there is no command {name}", self.place(call.node)));
                        continue;
                    }
                },
            };
            for parameter in &call.parameters {
                if !known.contains(&parameter.to_lowercase()) {
                    faults.push(format!("{}: {name} has no parameter -{parameter}", self.place(call.node)));
                }
            }
        }
    }

    /// Variables that are read but never set, an error in strict mode.
    fn unset_variables(&self, faults: &mut Vec<String>) {
        let name = |node| {
            let text = self.of(node).trim_start_matches('$').trim_matches(['{', '}']).to_lowercase();
            text.strip_prefix("script:").map_or_else(|| text.clone(), str::to_owned)
        };
        let mut set: BTreeSet<String> = AUTOMATIC.iter().map(|&name| name.to_owned()).collect();
        for node in all(self.root()) {
            match node.kind() {
                "left_assignment_expression" => set.extend(every(node, "variable").into_iter().map(name)),
                "script_parameter" | "foreach_statement" => {
                    set.extend(children(node).into_iter().filter(|child| child.kind() == "variable").map(name));
                }
                _ => {}
            }
        }
        for node in every(self.root(), "variable") {
            let read = name(node);
            if !read.starts_with("env:") && !set.contains(&read) {
                faults.push(format!("{}: {} is never set", self.place(node), self.of(node)));
            }
        }
    }
}

fn children(node: Node<'_>) -> Vec<Node<'_>> {
    (0..node.child_count()).filter_map(|index| node.child(index)).collect()
}

/// Every node from this one on, in text order.
fn all(node: Node<'_>) -> Vec<Node<'_>> {
    let mut found = vec![node];
    for child in children(node) {
        found.extend(all(child));
    }
    found
}

pub fn every<'a>(node: Node<'a>, kind: &str) -> Vec<Node<'a>> {
    all(node).into_iter().filter(|node| node.kind() == kind).collect()
}

pub fn child<'a>(node: Node<'a>, kind: &str) -> Node<'a> {
    children(node).into_iter().find(|child| child.kind() == kind).unwrap_or_else(|| panic!("no {kind} in {node:?}"))
}
