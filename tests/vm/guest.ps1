<#
.SYNOPSIS
Runs try.ps1 in a machine made by qemu.sh or hyperv.ps1, restarts when it asks for it, copies the results out, and turns the machine off. Not yet run on any Windows.
#>
Set-StrictMode -Version 3.0
$ErrorActionPreference = 'Stop'

# Written by the script that made the machine: blocked, permitted (comma lists), verifier, and the machine's addresses.
$Order = ConvertFrom-Json ([System.IO.File]::ReadAllText((Join-Path $PSScriptRoot 'order.json')))
$Results = Join-Path $PSScriptRoot 'results'
# The state of the previous run: 'running' if it never ended, because the machine stopped.
$LastFile = Join-Path $PSScriptRoot 'last.txt'

# The exit status of try.ps1, or a word if it has none: for the script that made the machine.
$StatusFile = Join-Path $PSScriptRoot 'status.txt'

function Set-Last([string] $Text) {
    [System.IO.File]::WriteAllText($LastFile, $Text)
}

function Get-Last {
    if (Test-Path -LiteralPath $LastFile) { [System.IO.File]::ReadAllText($LastFile) } else { '' }
}

# Runs try.ps1 with these further arguments; returns its exit status.
function Invoke-Try([string] $Words) {
    $start = New-Object System.Diagnostics.ProcessStartInfo
    $start.FileName = Join-Path $env:SystemRoot 'System32\WindowsPowerShell\v1.0\powershell.exe'
    $try = Join-Path $PSScriptRoot 'try.ps1'
    $start.Arguments = "-NoProfile -ExecutionPolicy Bypass -File `"$try`" -Results `"$Results`" $Words"
    $start.UseShellExecute = $false
    $process = [System.Diagnostics.Process]::Start($start)
    $process.WaitForExit()
    $process.ExitCode
}

# Sets the machine's addresses on its one network, which has no DHCP.
function Set-Network {
    $adapter = @(Get-NetAdapter | Where-Object { $_.Status -eq 'Up' })[0]
    foreach ($address in @($Order.addresses)) {
        $length = 24
        if ($address.Contains(':')) { $length = 64 }
        [void] (New-NetIPAddress -InterfaceIndex $adapter.ifIndex -IPAddress $address -PrefixLength $length)
    }
    # Until the addresses are no longer tentative.
    Start-Sleep -Seconds 10
}

# Copies the results to the exchange disk of qemu.sh, if there is one; hyperv.ps1 reads the machine's own disk.
function Send-Results {
    foreach ($drive in [System.IO.DriveInfo]::GetDrives()) {
        if ($drive.IsReady -and $drive.VolumeLabel -eq 'SLUICE') {
            $there = Join-Path $drive.RootDirectory.FullName 'results'
            Copy-Item -LiteralPath $Results -Destination $there -Recurse
            Copy-Item -LiteralPath $StatusFile -Destination $drive.RootDirectory.FullName
        }
    }
}

$last = Get-Last
if ($last -eq 'done') { exit 0 }
if ($last -eq '') { Set-Network }
Set-Last 'running'
if ($last -eq 'running') {
    # The machine stopped during the run. The dump is in the results; nothing is tried again.
    $code = Invoke-Try '-Undo'
    $word = "the machine stopped while try.ps1 ran; -Undo ended with $code"
} else {
    $words = "-Yes -Blocked $($Order.blocked) -Permitted $($Order.permitted)"
    if ($Order.verifier) { $words = "$words -Verifier" }
    $code = Invoke-Try $words
    if ($code -eq 3010 -and $last -ne 'restart') {
        Set-Last 'restart'
        Restart-Computer -Force
        exit 0
    }
    $word = "$code"
}
[System.IO.File]::WriteAllText($StatusFile, $word)
Send-Results
Set-Last 'done'
Stop-Computer -Force
