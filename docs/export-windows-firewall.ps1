# Writes every rule of Windows Firewall with all its filters, as CSV that `sluice policy import` reads:
#
#   powershell -ExecutionPolicy Bypass -File export-windows-firewall.ps1 > rules.csv
#   sluice policy import rules.csv > policy.toml
#
# Run it elevated, or rules of other users may be missing. Property names and values are English on every Windows.
# The filters are fetched once and joined by their InstanceID: querying each rule for its own takes many minutes.

$ErrorActionPreference = 'Stop'

function By-Instance($filters) {
    $found = @{}
    foreach ($filter in $filters) { $found[$filter.InstanceID] = $filter }
    $found
}

$ports = By-Instance (Get-NetFirewallPortFilter)
$addresses = By-Instance (Get-NetFirewallAddressFilter)
$applications = By-Instance (Get-NetFirewallApplicationFilter)
$services = By-Instance (Get-NetFirewallServiceFilter)
$interfaces = By-Instance (Get-NetFirewallInterfaceFilter)
$types = By-Instance (Get-NetFirewallInterfaceTypeFilter)
$security = By-Instance (Get-NetFirewallSecurityFilter)

Get-NetFirewallRule | ForEach-Object {
    $id = $_.InstanceID
    [pscustomobject]@{
        Name = $_.Name
        DisplayName = $_.DisplayName
        Description = $_.Description
        Group = $_.Group
        Enabled = "$($_.Enabled)"
        Direction = "$($_.Direction)"
        Action = "$($_.Action)"
        Profile = "$($_.Profile)"
        Owner = $_.Owner
        EdgeTraversalPolicy = "$($_.EdgeTraversalPolicy)"
        LooseSourceMapping = "$($_.LooseSourceMapping)"
        LocalOnlyMapping = "$($_.LocalOnlyMapping)"
        Platform = @($_.Platform) -join ','
        Protocol = $ports[$id].Protocol
        LocalPort = @($ports[$id].LocalPort) -join ','
        RemotePort = @($ports[$id].RemotePort) -join ','
        IcmpType = @($ports[$id].IcmpType) -join ','
        DynamicTarget = "$($ports[$id].DynamicTarget)"
        LocalAddress = @($addresses[$id].LocalAddress) -join ','
        RemoteAddress = @($addresses[$id].RemoteAddress) -join ','
        Program = $applications[$id].Program
        Package = $applications[$id].Package
        Service = $services[$id].Service
        InterfaceAlias = @($interfaces[$id].InterfaceAlias) -join ','
        InterfaceType = "$($types[$id].InterfaceType)"
        Authentication = "$($security[$id].Authentication)"
        Encryption = "$($security[$id].Encryption)"
        OverrideBlockRules = "$($security[$id].OverrideBlockRules)"
        LocalUser = $security[$id].LocalUser
        RemoteUser = $security[$id].RemoteUser
        RemoteMachine = $security[$id].RemoteMachine
    }
} | ConvertTo-Csv -NoTypeInformation
