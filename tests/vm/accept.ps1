# Acceptance of sluice.sys on a real Windows machine. See README.md beside this file. Not yet run by anybody.
param(
    [Parameter(Mandatory)] [string] $Permitted,
    [Parameter(Mandatory)] [string] $Blocked,
    [int] $Port = 80
)

$ErrorActionPreference = 'Stop'
$here = Split-Path -Parent $MyInvocation.MyCommand.Path
$sluice = Join-Path $here 'sluice.exe'
$provider = 'b24b702c-4e2a-4a61-9888-2076da07973f'
$script:failures = 0

function Step([string] $name, [scriptblock] $check) {
    try { $ok = [bool](& $check) } catch { $ok = $false; Write-Host "      $_" }
    if ($ok) { Write-Host "pass  $name" } else { Write-Host "FAIL  $name"; $script:failures++ }
}

function Connects([string] $address, [int] $withinMilliseconds = 5000) {
    $client = [Net.Sockets.TcpClient]::new()
    try { return $client.ConnectAsync($address, $Port).Wait($withinMilliseconds) -and $client.Connected }
    catch { return $false }
    finally { $client.Dispose() }
}

function NetEvents {
    $file = Join-Path $env:TEMP 'sluice-netevents.xml'
    netsh wfp show netevents file=$file | Out-Null
    [xml](Get-Content -Raw $file)
}

$policy = Join-Path $env:TEMP 'sluice-accept.toml'
@"
[default]
outbound = "permit"
inbound = "permit"

[[rule]]
name = "quarantine"
action = "block"
remote = "$Blocked"
"@ | Set-Content -Encoding utf8 $policy

Step 'both addresses answer before anything is installed' { (Connects $Permitted) -and (Connects $Blocked) }
Step 'install' { & $sluice install --driver (Join-Path $here 'sluice.sys'); $LASTEXITCODE -eq 0 }
Step 'install again changes nothing' { & $sluice install --driver (Join-Path $here 'sluice.sys'); $LASTEXITCODE -eq 0 }
Step 'without a policy both addresses still answer' { (Connects $Permitted) -and (Connects $Blocked) }
Step 'load' { & $sluice load $policy; $LASTEXITCODE -eq 0 }
Step 'the permitted address answers' { Connects $Permitted }
Step 'the blocked address is refused within a second' {
    $clock = [Diagnostics.Stopwatch]::StartNew()
    -not (Connects $Blocked) -and $clock.ElapsedMilliseconds -lt 1000
}
Step 'netsh shows the drop under our filter at layer 48' {
    $status = & $sluice status --json | ConvertFrom-Json
    $filter = ($status.filters | Where-Object layer -eq 'ALE_AUTH_CONNECT_V4').id
    (NetEvents).netEvents.item | Where-Object {
        $_.type -match 'CLASSIFY_DROP' -and $_.header.remoteAddrV4 -eq $Blocked -and
        $_.classifyDrop.filterId -eq "$filter" -and $_.classifyDrop.layerId -eq '48'
    }
}
Step 'the driver reports the decision' {
    (& $sluice events --json) -match [regex]::Escape($Blocked)
}
Step 'a bad policy is refused and the old one stays' {
    'nonsense = ' | Set-Content (Join-Path $env:TEMP 'bad.toml')
    & $sluice load (Join-Path $env:TEMP 'bad.toml') 2>$null
    ($LASTEXITCODE -ne 0) -and -not (Connects $Blocked)
}
Step 'uninstall' { & $sluice uninstall; $LASTEXITCODE -eq 0 }
Step 'both addresses answer again' { (Connects $Permitted) -and (Connects $Blocked) }
Step 'nothing of ours is left in WFP' {
    $file = Join-Path $env:TEMP 'sluice-state.xml'
    netsh wfp show state file=$file | Out-Null
    -not (Select-String -Quiet -SimpleMatch $provider $file)
}
Step 'no service is left' { -not (Get-Service -Name Sluice -ErrorAction SilentlyContinue) }
Step 'uninstall again says there is nothing to do' { & $sluice uninstall; $LASTEXITCODE -eq 0 }

Write-Host "$script:failures failures"
exit $script:failures
