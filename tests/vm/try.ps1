<#
.SYNOPSIS
Tries Sluicegate on this Windows machine and removes everything again.

.DESCRIPTION
Run it as administrator, in a disposable virtual machine, from the folder with sluice.sys, sluice.exe and
sluice.cer. It turns on test signing (restart, then run the same command again), trusts the certificate, installs the
driver, blocks one address, connects to a blocked and to a permitted one, looks for the drop in
`netsh wfp show netevents`, changes the policy under a running exchange, uninstalls, and compares
`netsh wfp show state` with what it was. Everything seen goes into one folder and one zip.

Not yet run on any Windows. It is for Windows PowerShell 5.1 and PowerShell 7.

Exit status: 0 every step passed, 1 a step failed, 2 it could not start or was stopped, 3010 a restart is needed.

.EXAMPLE
powershell -ExecutionPolicy Bypass -File try.ps1 -Blocked 192.0.2.66,2001:db8::66 -Permitted 192.0.2.10,2001:db8::10
#>
[CmdletBinding()]
param(
    # Addresses or names to block, where a web server must answer; one of each family is enough.
    [string[]] $Blocked = @(),
    # Addresses or names that must stay reachable.
    [string[]] $Permitted = @(),
    # The TCP port of the web servers.
    [int] $Port = 80,
    # Runs everything under Driver Verifier (standard settings, sluice.sys only). Needs a restart.
    [switch] $Verifier,
    # Asks nothing: needs -Blocked and -Permitted, and leaves the restart to the caller (exit status 3010).
    [switch] $Yes,
    # Only checks that this machine is ready, and changes nothing.
    [switch] $Check,
    # Only undoes what an interrupted earlier run has left.
    [switch] $Undo,
    # Where the results go; by default a new folder beside this script.
    [string] $Results = ''
)

Set-StrictMode -Version 3.0
$ErrorActionPreference = 'Stop'

# ---- Facts about the driver. A test checks these against the code they come from. ----

# The oldest build of Windows that exports what sluice.sys imports.
$OldestBuild = 19041
$ServiceName = 'Sluice'
$ProviderKey = 'b24b702c-4e2a-4a61-9888-2076da07973f'
# How many layers have a callout and a filter of ours.
$LayerCount = 24
# Where a blocked connect() is dropped: the layer as `sluice status` names it, and its run-time id.
$ConnectLayer = @{ IPv4 = 'ALE_AUTH_CONNECT_V4'; IPv6 = 'ALE_AUTH_CONNECT_V6' }
$ConnectLayerId = @{ IPv4 = '48'; IPv6 = '50' }
# The exit statuses of `sluice` other than 0 that a step expects.
$PolicyNotValid = 4
# `sc query` of a missing service: ERROR_SERVICE_DOES_NOT_EXIST.
$NoSuchService = 1060

# ---- Queries on netsh's files: XPath 1.0, tried by a test on files from the simulated machine. The words in capitals
# ---- are replaced by values.

# The element of a file to query; wfpstate.xml has a second one after it, so it is not a valid XML document.
$NetEventsRoot = '(?s)<netEvents\s*/>|<netEvents\b.*</netEvents>'
$StateRoot = '(?s)<wfpstate\b.*</wfpstate>'
# Drops of ours. Windows 11 writes PUBLIC_CLASSIFY_DROP; IPv6 addresses are in an element with a dot in its name.
$DropQuery = '/netEvents/item' +
    '[type="FWPM_NET_EVENT_TYPE_CLASSIFY_DROP" or type="FWPM_NET_EVENT_TYPE_PUBLIC_CLASSIFY_DROP"]' +
    '[header/*[name()="remoteAddrV4" or name()="remoteAddrV6" or name()="remoteAddrV6.byteArray16"]="REMOTE"]' +
    '[classifyDrop/filterId="FILTER"][classifyDrop/layerId="LAYER"]'
$FilterQuery = '/wfpstate/layers/item/filters/item[providerKey="{PROVIDER}"]'
$CalloutQuery = '/wfpstate/layers/item/callouts/item[providerKey="{PROVIDER}"]' +
    '[flags/item="FWPM_CALLOUT_FLAG_REGISTERED"]'
# Anything of ours at all: filters, callouts, sublayers, provider contexts, and the provider itself.
$OursQuery = '/wfpstate//item[providerKey="{PROVIDER}"]'

# ---- Output ----

$script:Folder = ''
$script:Rows = New-Object System.Collections.ArrayList
$script:SkipReason = $null
$System32 = Join-Path $env:SystemRoot 'System32'
$Utf8 = New-Object System.Text.UTF8Encoding $false

function Write-Line([string] $Text) {
    Write-Host $Text
    if ($script:Folder -ne '') {
        [System.IO.File]::AppendAllText((Join-Path $script:Folder 'try.log'), "$Text`r`n", $Utf8)
    }
}

function Write-File([string] $Name, [string] $Text) {
    [System.IO.File]::WriteAllText((Join-Path $script:Folder $Name), $Text, $Utf8)
}

function Get-Row([string] $Result) {
    @($script:Rows | Where-Object { $_.Result -ceq $Result })
}

# Runs a step. It passes unless its body throws; what the body returns is shown with the result.
function Invoke-Step([string] $What, [scriptblock] $Body, [switch] $Essential) {
    $result = 'pass'
    $script:SkipReason = $null
    try {
        $detail = @(& $Body) -join ' '
    } catch {
        $result = 'FAIL'
        $detail = $_.Exception.Message
        if ($null -ne $script:SkipReason) { $result = 'skipped' }
    }
    [void] $script:Rows.Add([pscustomobject] @{ Result = $result; What = $What; Detail = $detail })
    $line = '{0,-8} {1}' -f $result, $What
    if ($detail -ne '') { $line = "${line}: $detail" }
    Write-Line $line
    if ($Essential -and $result -ceq 'FAIL') { throw "nothing more can be tried after: $What" }
}

# Ends the step with this reason unless the condition is true.
function Assert-That([bool] $Condition, [string] $Otherwise) {
    if (-not $Condition) { throw $Otherwise }
}

function Skip-Step([string] $Reason) {
    $script:SkipReason = $Reason
    throw $Reason
}

function Read-Answer([string] $Question) {
    if ($Yes) { return 'y' }
    Read-Host $Question
}

# ---- Programs ----

# Quotes one argument for the C run-time of Windows.
function ConvertTo-Argument([string] $Text) {
    if ($Text -match '^[A-Za-z0-9_./:=,\\-]+$') { return $Text }
    '"' + ($Text -replace '(\\*)"', '$1$1\"' -replace '(\\+)$', '$1$1') + '"'
}

# Runs a program of Windows, or `sluice`, in the folder of the results. Not with `&`: Windows PowerShell 5.1 turns every
# redirected line of standard error into an error, and a program must run to its end while Ctrl-C is handled.
function Invoke-Program([string] $Program, [string[]] $Arguments) {
    $start = New-Object System.Diagnostics.ProcessStartInfo
    $start.FileName = Join-Path $System32 $Program
    if ($Program -ceq 'sluice') {
        $start.FileName = Join-Path $PSScriptRoot 'sluice.exe'
        $start.StandardOutputEncoding = $Utf8
        $start.StandardErrorEncoding = $Utf8
    }
    $quoted = foreach ($argument in $Arguments) { ConvertTo-Argument $argument }
    $start.Arguments = @($quoted) -join ' '
    $start.WorkingDirectory = $script:Folder
    $start.UseShellExecute = $false
    $start.CreateNoWindow = $true
    $start.RedirectStandardOutput = $true
    $start.RedirectStandardError = $true
    $process = [System.Diagnostics.Process]::Start($start)
    $output = $process.StandardOutput.ReadToEndAsync()
    $errors = $process.StandardError.ReadToEndAsync()
    if (-not $process.WaitForExit(300000)) {
        $process.Kill()
        throw "$Program $($start.Arguments) did not end within five minutes"
    }
    $answer = [pscustomobject] @{ Code = $process.ExitCode; Out = $output.Result; Err = $errors.Result }
    $process.Dispose()
    $log = "> $Program $($start.Arguments)`r`n$($answer.Out)$($answer.Err)= $($answer.Code)`r`n"
    [System.IO.File]::AppendAllText((Join-Path $script:Folder 'programs.log'), $log, $Utf8)
    $answer
}

# The same, where any exit status other than the expected one is a failure.
function Invoke-Expecting([int] $Code, [string] $Program, [string[]] $Arguments) {
    $answer = Invoke-Program $Program $Arguments
    if ($answer.Code -ne $Code) {
        $said = ("$($answer.Err) $($answer.Out)" -replace '\s+', ' ').Trim()
        throw "$Program $($Arguments -join ' ') ended with $($answer.Code) instead of ${Code}: $said"
    }
    $answer.Out
}

# ---- What this script changed on the machine, kept where only administrators can write ----

$Memory = 'SOFTWARE\Sluicegate-try'

function Get-LocalMachineValue([string] $Path, [string] $Name) {
    [Microsoft.Win32.Registry]::GetValue("HKEY_LOCAL_MACHINE\$Path", $Name, $null)
}

function Get-Memory([string] $Name) {
    [string] (Get-LocalMachineValue $Memory $Name)
}

function Set-Memory([string] $Name, [string] $Value) {
    [Microsoft.Win32.Registry]::SetValue("HKEY_LOCAL_MACHINE\$Memory", $Name, $Value)
}

# A missing value is the same as an empty one.
function Clear-Memory([string] $Name) {
    Set-Memory $Name ''
}

# ---- Undo ----

# Undoes one change, or says that it is left and how to undo it by hand.
function Undo-One([string] $Name, [string] $What, [string] $ByHand, [scriptblock] $Body) {
    $value = Get-Memory $Name
    if ($value -eq '') { return }
    try {
        [void] (& $Body $value)
        Clear-Memory $Name
        Write-Line "undone   $What"
    } catch {
        $script:Left = $true
        Write-Line "LEFT     ${What}: $($_.Exception.Message). By hand: $ByHand"
    }
}

function Undo-Everything {
    $script:Left = $false
    Undo-One 'Installed' 'the installation' 'sluice uninstall' {
        Invoke-Expecting 0 'sluice' @('uninstall')
    }
    foreach ($store in 'TrustedPublisher', 'Root') {
        Undo-One $store "the certificate in $store" "certutil -delstore $store THUMBPRINT" {
            param($thumbprint)
            Remove-Certificate $store $thumbprint
        }
    }
    Undo-One 'Verifier' 'Driver Verifier, from the next restart on' 'verifier /reset' {
        $code = (Invoke-Program 'verifier.exe' @('/reset')).Code
        Assert-That ($code -eq 0 -or $code -eq 2) "verifier ended with $code"
    }
    Undo-One 'TestSigning' 'test signing, from the next restart on' 'bcdedit /set testsigning off' {
        param($before)
        if ($before -ceq 'off') {
            Invoke-Expecting 0 'bcdedit.exe' @('/set', '{current}', 'testsigning', 'off')
        } else {
            Invoke-Expecting 0 'bcdedit.exe' @('/deletevalue', '{current}', 'testsigning')
        }
    }
    if (-not $script:Left) {
        [Microsoft.Win32.Registry]::LocalMachine.DeleteSubKeyTree($Memory, $false)
    }
}

# ---- Is this machine ready? ----

# IMAGE_FILE_HEADER.Machine of a driver file, as Windows' own name for the processor.
function Get-DriverArchitecture([string] $Path) {
    $bytes = [System.IO.File]::ReadAllBytes($Path)
    $header = [System.BitConverter]::ToInt32($bytes, 0x3c)
    switch ([System.BitConverter]::ToUInt16($bytes, $header + 4)) {
        0x8664 { 'AMD64' }
        0xaa64 { 'ARM64' }
        default { "machine $_" }
    }
}

function Test-Machine {
    Invoke-Step 'files beside this script' {
        foreach ($name in 'sluice.sys', 'sluice.exe', 'sluice.cer') {
            Assert-That (Test-Path -LiteralPath (Join-Path $PSScriptRoot $name)) "$name is missing"
        }
    }
    Invoke-Step 'processor' {
        Assert-That ([System.Environment]::Is64BitProcess) 'this is a 32-bit PowerShell: start the 64-bit one'
        $environment = 'SYSTEM\CurrentControlSet\Control\Session Manager\Environment'
        $machine = Get-LocalMachineValue $environment 'PROCESSOR_ARCHITECTURE'
        $driver = Get-DriverArchitecture (Join-Path $PSScriptRoot 'sluice.sys')
        Assert-That ($machine -eq $driver) "this machine is $machine, sluice.sys is for $driver"
        $machine
    }
    Invoke-Step 'Windows' {
        $version = 'SOFTWARE\Microsoft\Windows NT\CurrentVersion'
        $build = [int] (Get-LocalMachineValue $version 'CurrentBuildNumber')
        $name = "build $build.$(Get-LocalMachineValue $version 'UBR'), $(Get-LocalMachineValue $version 'EditionID')"
        Assert-That ($build -ge $OldestBuild) "$name; sluice.sys needs $OldestBuild (Windows 10 2004) or newer"
        $name
    }
    Invoke-Step 'Base Filtering Engine' {
        Assert-That ((Get-Service -Name 'BFE').Status -eq 'Running') 'the service BFE is not running'
    }
    Invoke-Step 'Sluicegate is not installed' {
        Assert-That ((Get-Memory 'Installed') -eq '') 'an earlier run was interrupted: run try.ps1 -Undo first'
        $found = (Invoke-Program 'sc.exe' @('query', $ServiceName)).Code
        Assert-That ($found -eq $NoSuchService) 'it is: run `sluice uninstall` first; this script removes what it installs'
    }
    Invoke-Step 'Secure Boot' {
        $state = Get-LocalMachineValue 'SYSTEM\CurrentControlSet\Control\SecureBoot\State' 'UEFISecureBootEnabled'
        Assert-That ($state -ne 1) ('it is on, so Windows loads no test-signed driver. Turn it off in the ' +
            'firmware: Hyper-V: Set-VMFirmware -EnableSecureBoot Off; QEMU: OVMF without .secboot; ' +
            'VMware, VirtualBox: in the settings of the machine')
        'off'
    }
    Invoke-Step 'BitLocker' {
        if (Test-TestSigning) { return 'test signing is on already, so nothing changes for it' }
        $names = 'root\cimv2\Security\MicrosoftVolumeEncryption'
        $volumes = @()
        try { $volumes = @(Get-CimInstance -Namespace $names -ClassName Win32_EncryptableVolume) }
        catch { Skip-Step "Windows does not report it: $($_.Exception.Message)" }
        $ours = @($volumes | Where-Object { $_.DriveLetter -eq $env:SystemDrive -and $_.ProtectionStatus -eq 1 })
        Assert-That ($ours.Count -eq 0) ("it protects $env:SystemDrive and would ask for its recovery key after " +
            "test signing is turned on. Suspend it: manage-bde -protectors -disable $env:SystemDrive -rebootcount 2")
        'does not protect this drive'
    }
    Invoke-Step 'memory integrity (HVCI)' {
        $guard = $null
        try { $guard = Get-CimInstance -Namespace 'root\Microsoft\Windows\DeviceGuard' -ClassName Win32_DeviceGuard }
        catch { Skip-Step "Windows does not report it: $($_.Exception.Message)" }
        if (@($guard.SecurityServicesRunning) -contains 2) {
            return 'on: a driver that is writable and executable is refused, sluice.sys has no such section'
        }
        'off'
    }
}

# ---- Test signing, Driver Verifier, certificate ----

# Whether the running Windows was started with test signing on.
function Test-TestSigning {
    [string] (Get-LocalMachineValue 'SYSTEM\CurrentControlSet\Control' 'SystemStartOptions') -match '\bTESTSIGNING\b'
}

function Test-Verifier {
    $management = 'SYSTEM\CurrentControlSet\Control\Session Manager\Memory Management'
    [string] (Get-LocalMachineValue $management 'VerifyDrivers')
}

# Sets the options that need a restart; returns whether one is needed.
function Enable-StartOptions {
    $restart = $false
    if (-not (Test-TestSigning)) {
        $restart = $true
        $entries = (Invoke-Program 'bcdedit.exe' @('/enum', '{current}')).Out
        if ($entries -match '(?m)^testsigning\s+Yes\s*$') {
            Write-Line 'test signing was already turned on, and needs a restart'
        } else {
            if ((Get-Memory 'TestSigning') -eq '') {
                $before = 'absent'
                if ($entries -match '(?m)^testsigning\s') { $before = 'off' }
                Set-Memory 'TestSigning' $before
            }
            try { [void] (Invoke-Expecting 0 'bcdedit.exe' @('/set', '{current}', 'testsigning', 'on')) }
            catch {
                Clear-Memory 'TestSigning'
                throw
            }
            Write-Line 'test signing was turned on'
        }
    }
    if ($Verifier) {
        $others = Test-Verifier
        if ($others -eq '') {
            $restart = $true
            Set-Memory 'Verifier' 'set'
            $code = (Invoke-Program 'verifier.exe' @('/standard', '/driver', 'sluice.sys')).Code
            Assert-That ($code -eq 0 -or $code -eq 2) "verifier ended with $code"
            Write-Line 'Driver Verifier was turned on for sluice.sys'
        } elseif ((Get-Memory 'Verifier') -eq '') {
            throw "Driver Verifier is already set up, for ${others}: run verifier /reset first, or leave out -Verifier"
        }
    }
    $restart
}

function Open-Store([string] $Name) {
    $store = New-Object System.Security.Cryptography.X509Certificates.X509Store $Name, 'LocalMachine'
    $store.Open('ReadWrite')
    $store
}

function Add-Certificate {
    $path = Join-Path $PSScriptRoot 'sluice.cer'
    $certificate = New-Object System.Security.Cryptography.X509Certificates.X509Certificate2 $path
    foreach ($name in 'Root', 'TrustedPublisher') {
        $store = Open-Store $name
        try {
            if ($store.Certificates.Find('FindByThumbprint', $certificate.Thumbprint, $false).Count -eq 0) {
                Set-Memory $name $certificate.Thumbprint
                $store.Add($certificate)
            }
        } finally { $store.Close() }
    }
    "$($certificate.Subject), $($certificate.Thumbprint)"
}

function Remove-Certificate([string] $Name, [string] $Thumbprint) {
    $store = Open-Store $Name
    try {
        foreach ($found in @($store.Certificates.Find('FindByThumbprint', $Thumbprint, $false))) {
            $store.Remove($found)
        }
    } finally { $store.Close() }
}

# ---- Connections ----

function Resolve-Address([string[]] $Names) {
    foreach ($name in @($Names -split '[,\s]+')) {
        if ($name -eq '') { continue }
        $address = $null
        if ([System.Net.IPAddress]::TryParse($name, [ref] $address)) { $address } else {
            [System.Net.Dns]::GetHostAddresses($name)
        }
    }
}

function Select-Family([System.Net.IPAddress[]] $Addresses, [string] $Family) {
    $wanted = 'InterNetwork'
    if ($Family -ceq 'IPv6') { $wanted = 'InterNetworkV6' }
    @($Addresses | Where-Object { "$($_.AddressFamily)" -ceq $wanted }) | Select-Object -First 1
}

# Opens a TCP connection: returns its client, and the name of the socket's error ('Success' if there was none).
function Connect-Tcp([System.Net.IPAddress] $Address) {
    $client = New-Object System.Net.Sockets.TcpClient $Address.AddressFamily
    $outcome = 'TimedOut'
    try {
        $pending = $client.BeginConnect($Address, $Port, $null, $null)
        if ($pending.AsyncWaitHandle.WaitOne(8000)) {
            $client.EndConnect($pending)
            $outcome = 'Success'
        }
    } catch {
        $cause = $_.Exception.GetBaseException()
        if ($cause -isnot [System.Net.Sockets.SocketException]) { throw }
        $outcome = "$($cause.SocketErrorCode)"
    }
    [pscustomobject] @{ Client = $client; Outcome = $outcome }
}

function Get-Outcome([System.Net.IPAddress] $Address) {
    $connection = Connect-Tcp $Address
    $connection.Client.Dispose()
    $connection.Outcome
}

function Assert-Answer([System.Net.IPAddress[]] $Addresses) {
    foreach ($address in $Addresses) {
        $outcome = Get-Outcome $address
        Assert-That ($outcome -ceq 'Success') "$address port ${Port}: $outcome"
    }
}

# Requests a web server's page on an open connection: 'data', 'closed' by the server, or 'cut'.
function Request-Page($Client, [System.Net.IPAddress] $Address) {
    $name = "$Address"
    if ($name.Contains(':')) { $name = "[$name]" }
    $request = [System.Text.Encoding]::ASCII.GetBytes("GET / HTTP/1.1`r`nHost: $name`r`nConnection: keep-alive`r`n`r`n")
    $answer = New-Object byte[] 65536
    try {
        $stream = $Client.GetStream()
        $stream.ReadTimeout = 10000
        $stream.Write($request, 0, $request.Length)
        if ($stream.Read($answer, 0, $answer.Length) -eq 0) { return 'closed' }
        'data'
    } catch {
        $cause = $_.Exception.GetBaseException()
        if ($cause -isnot [System.Net.Sockets.SocketException] -and $cause -isnot [System.IO.IOException] -and
            $cause -isnot [System.InvalidOperationException]) { throw }
        'cut'
    }
}

# ---- netsh ----

function Read-Netsh([string] $File, [string] $Root) {
    $text = [System.IO.File]::ReadAllText((Join-Path $script:Folder $File))
    $found = [regex]::Match($text, $Root)
    Assert-That $found.Success "netsh wrote $File without the expected element"
    $settings = New-Object System.Xml.XmlReaderSettings
    $settings.CheckCharacters = $false
    $reader = [System.Xml.XmlReader]::Create((New-Object System.IO.StringReader $found.Value), $settings)
    $document = New-Object System.Xml.XmlDocument
    $document.Load($reader)
    # The comma keeps PowerShell from returning the document's nodes instead of the document.
    , $document
}

function Read-State([string] $File) {
    [void] (Invoke-Expecting 0 'netsh.exe' @('wfp', 'show', 'state', "file=$File"))
    , (Read-Netsh $File $StateRoot)
}

function Measure-Ours($State, [string] $Query) {
    $State.SelectNodes($Query.Replace('PROVIDER', $ProviderKey)).Count
}

function Measure-Drop([string] $File, [System.Net.IPAddress] $Remote, [string] $Filter, [string] $Layer) {
    [void] (Invoke-Expecting 0 'netsh.exe' @('wfp', 'show', 'netevents', "file=$File"))
    $events = Read-Netsh $File $NetEventsRoot
    $query = $DropQuery.Replace('REMOTE', "$Remote").Replace('FILTER', $Filter).Replace('LAYER', $Layer)
    $events.SelectNodes($query).Count
}

# ---- The trial ----

function New-Policy([string] $File, [System.Net.IPAddress[]] $Remotes) {
    $list = @($Remotes | ForEach-Object { "`"$_`"" }) -join ', '
    Write-File $File @"
[default]
outbound = "permit"
inbound = "permit"
log = true

[[rule]]
name = "try"
action = "block"
log = true
remote = [$list]
"@
}

function Test-Driver([System.Net.IPAddress[]] $Bad, [System.Net.IPAddress[]] $Good) {
    $families = @()
    foreach ($family in 'IPv4', 'IPv6') {
        Invoke-Step "$family, before anything is installed: both addresses answer" {
            $pair = @((Select-Family $Bad $family), (Select-Family $Good $family))
            if ($pair -contains $null) { Skip-Step "no $family address to block and another to permit was given" }
            foreach ($address in $pair) {
                $outcome = Get-Outcome $address
                if ($outcome -cne 'Success') { Skip-Step "$address port ${Port}: $outcome" }
            }
        }
        if ($script:Rows[$script:Rows.Count - 1].Result -ceq 'pass') { $families += $family }
    }
    Assert-That ($families.Count -gt 0) 'neither family has two addresses that answer, so nothing can be tested'
    $blockedNow = @($families | ForEach-Object { Select-Family $Bad $_ })
    $permittedNow = @($families | ForEach-Object { Select-Family $Good $_ })

    Invoke-Step 'netsh shows nothing of ours before' {
        $left = Measure-Ours (Read-State 'state-before.xml') $OursQuery
        Assert-That ($left -eq 0) "$left objects of ours exist"
    }
    Invoke-Step 'sluice install --dry-run finds no obstacle' {
        $said = Invoke-Expecting 0 'sluice' @('install', '--dry-run', (Join-Path $PSScriptRoot 'sluice.sys'))
        Write-File 'dry-run.txt' $said
    }
    Invoke-Step 'sluice install' -Essential {
        Set-Memory 'Installed' 'yes'
        # On demand: a driver that stops Windows must not do so at every start.
        [void] (Invoke-Expecting 0 'sluice' @('install', '--start', 'demand', (Join-Path $PSScriptRoot 'sluice.sys')))
    }
    Invoke-Step 'sluice status' -Essential {
        $text = Invoke-Expecting 0 'sluice' @('status', '--json')
        Write-File 'status.json' $text
        $report = ConvertFrom-Json $text
        Assert-That ($report.filters_complete -eq $true) 'filters are missing'
        $script:Filters = @($report.filters)
        "$($script:Filters.Count) filters"
    }
    Invoke-Step 'sluice install again changes nothing' {
        [void] (Invoke-Expecting 0 'sluice' @('install', (Join-Path $PSScriptRoot 'sluice.sys')))
        $report = ConvertFrom-Json (Invoke-Expecting 0 'sluice' @('status', '--json'))
        $changed = Compare-Object $script:Filters @($report.filters) -Property id, layer
        Assert-That ($null -eq $changed) 'the filters have changed'
    }
    Invoke-Step 'netsh shows our filters and registered callouts' {
        $state = Read-State 'state-installed.xml'
        $filters = Measure-Ours $state $FilterQuery
        $callouts = Measure-Ours $state $CalloutQuery
        Assert-That ($filters -eq $LayerCount -and $callouts -eq $LayerCount) `
            "$filters filters and $callouts registered callouts instead of $LayerCount"
    }
    if ($Verifier) {
        Invoke-Step 'Driver Verifier watches sluice.sys' {
            Assert-That ((Invoke-Program 'verifier.exe' @('/query')).Out -match 'sluice\.sys') 'it does not'
        }
    }
    Invoke-Step 'without a policy all addresses answer' { Assert-Answer ($blockedNow + $permittedNow) }

    New-Policy 'try.toml' $Bad
    New-Policy 'try-both.toml' ($Bad + $Good)
    Write-File 'bad.toml' "nonsense = `r`n"
    Invoke-Step 'sluice load' -Essential { [void] (Invoke-Expecting 0 'sluice' @('load', 'try.toml')) }
    foreach ($family in $families) { Test-Block $family (Select-Family $Bad $family) (Select-Family $Good $family) }
    Invoke-Step 'sluice events shows the decisions' {
        $text = Invoke-Expecting 0 'sluice' @('events', '--json')
        Write-File 'events.json' $text
        $lines = @($text -split "`n" | Where-Object { $_.Trim() -ne '' } | ForEach-Object { ConvertFrom-Json $_ })
        $blocks = @($lines | Where-Object { $_.type -ceq 'event' } | Where-Object { $_.verdict -ceq 'block' })
        foreach ($address in $blockedNow) {
            $ours = @($blocks | Where-Object { $_.remote_address -ceq "$address" })
            Assert-That ($ours.Count -gt 0) "no block of $address among $($lines.Count) events"
        }
    }
    Invoke-Step 'a bad policy is refused and the old one stays' {
        [void] (Invoke-Expecting $PolicyNotValid 'sluice' @('load', 'bad.toml'))
        foreach ($address in $blockedNow) {
            Assert-That ((Get-Outcome $address) -cne 'Success') "$address can be reached"
        }
    }
    foreach ($family in $families) { Test-Swap $family (Select-Family $Good $family) }

    Invoke-Step 'sluice uninstall' {
        [void] (Invoke-Expecting 0 'sluice' @('uninstall'))
        Clear-Memory 'Installed'
    }
    Invoke-Step 'all addresses answer again' { Assert-Answer ($blockedNow + $permittedNow) }
    Invoke-Step 'netsh shows nothing of ours after' {
        $left = Measure-Ours (Read-State 'state-after.xml') $OursQuery
        Assert-That ($left -eq 0) "$left objects of ours are left"
    }
    Invoke-Step 'no service and no driver file is left' {
        $code = (Invoke-Program 'sc.exe' @('query', $ServiceName)).Code
        Assert-That ($code -eq $NoSuchService) "sc query ended with $code"
        $file = Join-Path $System32 'drivers\sluice.sys'
        Assert-That (-not (Test-Path -LiteralPath $file)) "$file is left"
    }
    Invoke-Step 'sluice uninstall again finds nothing' { [void] (Invoke-Expecting 0 'sluice' @('uninstall')) }
}

function Test-Block([string] $Family, [System.Net.IPAddress] $Bad, [System.Net.IPAddress] $Good) {
    $filter = @($script:Filters | Where-Object { $_.layer -ceq $ConnectLayer[$Family] } | ForEach-Object { "$($_.id)" })
    Invoke-Step "${Family}: the permitted address answers" { Assert-Answer $Good }
    $script:Drops = 0
    $script:Refusal = ''
    Invoke-Step "${Family}: the blocked address does not" {
        Assert-That ($filter.Count -eq 1) "sluice status names $($filter.Count) filters at $($ConnectLayer[$Family])"
        $script:Drops = Measure-Drop "netevents-$Family-before.xml" $Bad $filter[0] $ConnectLayerId[$Family]
        $script:Refusal = Get-Outcome $Bad
        Assert-That ($script:Refusal -cne 'Success') 'it does'
    }
    Invoke-Step "${Family}: connect() fails at once (WSAEACCES)" {
        Assert-That ($script:Refusal -ceq 'AccessDenied') "it returned $($script:Refusal)"
    }
    Invoke-Step "${Family}: netsh shows the drop under our filter" {
        $now = 0
        foreach ($second in 1..15) {
            $now = Measure-Drop "netevents-$Family.xml" $Bad $filter[0] $ConnectLayerId[$Family]
            if ($now -gt $script:Drops) { break }
            Start-Sleep -Seconds 1
        }
        Assert-That ($now -gt $script:Drops) "no new drop by filter $($filter[0]) at layer $($ConnectLayerId[$Family])"
        "filter $($filter[0]), layer $($ConnectLayerId[$Family])"
    }
}

# Changes the policy during an exchange: to one that still permits it, then to one that does not.
function Test-Swap([string] $Family, [System.Net.IPAddress] $Address) {
    $connection = Connect-Tcp $Address
    try {
        Invoke-Step "${Family}: a policy that permits an exchange lets it continue" {
            Assert-That ($connection.Outcome -ceq 'Success') "${Address}: $($connection.Outcome)"
            foreach ($round in 1..3) {
                $seen = Request-Page $connection.Client $Address
                if ($seen -ceq 'closed') { Skip-Step 'the server closes the connection after an answer' }
                Assert-That ($seen -ceq 'data') "the exchange was $seen in round $round"
                if ($round -eq 1) { [void] (Invoke-Expecting 0 'sluice' @('load', 'try.toml')) }
            }
        }
        $before = $script:Rows[$script:Rows.Count - 1].Result
        Invoke-Step "${Family}: a policy that forbids it cuts it off" {
            if ($before -cne 'pass') { Skip-Step 'there is no exchange to cut' }
            [void] (Invoke-Expecting 0 'sluice' @('load', 'try-both.toml'))
            $seen = 'data'
            foreach ($round in 1..20) {
                $seen = Request-Page $connection.Client $Address
                if ($seen -cne 'data') { break }
                Start-Sleep -Milliseconds 200
            }
            Assert-That ($seen -ceq 'cut') "after 20 requests it was: $seen"
        }
    } finally {
        $connection.Client.Dispose()
    }
    Invoke-Step "${Family}: the first policy permits it again" {
        [void] (Invoke-Expecting 0 'sluice' @('load', 'try.toml'))
        Assert-Answer $Address
    }
}

# ---- Results to send ----

function Save-Evidence {
    $version = 'SOFTWARE\Microsoft\Windows NT\CurrentVersion'
    $lines = foreach ($name in 'EditionID', 'DisplayVersion', 'CurrentBuildNumber', 'UBR', 'BuildLabEx') {
        "$name = $(Get-LocalMachineValue $version $name)"
    }
    $lines += "PowerShell = $($PSVersionTable.PSVersion)"
    $lines += "SystemStartOptions = $(Get-LocalMachineValue 'SYSTEM\CurrentControlSet\Control' 'SystemStartOptions')"
    foreach ($name in 'sluice.sys', 'sluice.exe', 'sluice.cer') {
        $path = Join-Path $PSScriptRoot $name
        if (Test-Path -LiteralPath $path) { $lines += "$name = $((Get-FileHash -LiteralPath $path).Hash)" }
    }
    Write-File 'system.txt' ((@($lines) -join "`r`n") + "`r`n")
    if (@(Get-Row 'FAIL').Count -gt 0) {
        # Here Windows says why it refused a driver.
        $log = 'Microsoft-Windows-CodeIntegrity/Operational'
        $reasons = Invoke-Program 'wevtutil.exe' @('qe', $log, '/c:40', '/rd:true', '/f:text')
        Write-File 'code-integrity.txt' $reasons.Out
    }
    $since = (Get-Item -LiteralPath $script:Folder).CreationTime
    $dumps = @(Get-ChildItem -Path (Join-Path $env:SystemRoot 'Minidump\*.dmp') -ErrorAction Ignore) +
        @(Get-ChildItem -Path (Join-Path $env:SystemRoot 'MEMORY.DMP') -ErrorAction Ignore)
    foreach ($dump in @($dumps | Where-Object { $_.LastWriteTime -ge $since })) {
        Write-Line "a crash left $($dump.FullName)"
        if ($dump.Length -lt 67108864) { Copy-Item -LiteralPath $dump.FullName -Destination $script:Folder }
    }
}

function Write-Table {
    Write-Line ''
    foreach ($row in $script:Rows) { Write-Line ('{0,-8} {1}' -f $row.Result, $row.What) }
    Write-Line ('{0} passed, {1} failed, {2} skipped' -f @(Get-Row 'pass').Count, @(Get-Row 'FAIL').Count,
        @(Get-Row 'skipped').Count)
}

function Compress-Results {
    Add-Type -AssemblyName System.IO.Compression.FileSystem
    $zip = "$($script:Folder).zip"
    if (Test-Path -LiteralPath $zip) { Remove-Item -LiteralPath $zip }
    [System.IO.Compression.ZipFile]::CreateFromDirectory($script:Folder, $zip)
    Write-Host "Results: $zip. It names this machine's users, programs and filters: review it before you send it."
}

function Test-Administrator {
    $principal = New-Object System.Security.Principal.WindowsPrincipal (
        [System.Security.Principal.WindowsIdentity]::GetCurrent())
    $principal.IsInRole([System.Security.Principal.WindowsBuiltInRole]::Administrator)
}

if (-not (Test-Administrator)) {
    Write-Host 'try.ps1 needs an elevated PowerShell: start it with "Run as administrator".'
    exit 2
}
$script:Left = $false
$exitCode = 2
$keep = $false
try {
    # After a restart a run continues in the folder in which it began.
    if ($Results -eq '') { $Results = Get-Memory 'Results' }
    if ($Results -eq '') { $Results = Join-Path $PSScriptRoot "results-$(Get-Date -Format 'yyyyMMdd-HHmmss')" }
    $script:Folder = (New-Item -ItemType Directory -Force -Path $Results).FullName
    Write-Line "try.ps1, $(Get-Date -Format 'u')"
    if (-not $Undo) {
        Test-Machine
        if (@(Get-Row 'FAIL').Count -gt 0) { throw 'this machine is not ready, see FAIL above' }
    }
    if ($Check -or $Undo) {
        $exitCode = 0
    } else {
        if ($Blocked.Count -eq 0 -and -not $Yes) { $Blocked = @(Read-Host 'Addresses or a name to block') }
        if ($Permitted.Count -eq 0 -and -not $Yes) { $Permitted = @(Read-Host 'Addresses or a name to permit') }
        $bad = @(Resolve-Address $Blocked)
        $good = @(Resolve-Address $Permitted)
        Assert-That ($bad.Count -gt 0 -and $good.Count -gt 0) 'give an address to block and one to permit'
        $both = @($bad | Where-Object { $good -contains $_ })
        Assert-That ($both.Count -eq 0) "$($both -join ', ') cannot be both blocked and permitted"
        Write-Line "blocked: $($bad -join ', '); permitted: $($good -join ', '); port $Port"
        Write-Line 'This trusts a test certificate and loads a test-signed driver. Use a disposable machine.'
        Assert-That ((Read-Answer 'Continue? [y/n]') -match '^[yY]') 'you did not want to continue'
        if (Enable-StartOptions) {
            Set-Memory 'Results' $script:Folder
            $keep = $true
            $exitCode = 3010
        } else {
            Invoke-Step 'the certificate is trusted' -Essential { Add-Certificate }
            Invoke-Step 'the signature of sluice.sys is valid' {
                $signature = Get-AuthenticodeSignature -LiteralPath (Join-Path $PSScriptRoot 'sluice.sys')
                Assert-That ($signature.Status -eq 'Valid') "$($signature.Status): $($signature.StatusMessage)"
            }
            Test-Driver $bad $good
            $exitCode = 0
        }
    }
} catch {
    Write-Line "stopped  $($_.Exception.Message)"
} finally {
    # Also after Ctrl-C.
    if ($script:Folder -ne '') {
        if (-not $keep -and -not $Check) { Undo-Everything }
        if (@(Get-Row 'FAIL').Count -gt 0 -and $exitCode -eq 0) { $exitCode = 1 }
        if ($script:Left -and $exitCode -eq 0) { $exitCode = 1 }
        if (-not $keep) {
            try { Save-Evidence } catch { Write-Line "not all evidence could be saved: $($_.Exception.Message)" }
            Write-Table
            try { Compress-Results } catch { Write-Line "send the folder $($script:Folder): $($_.Exception.Message)" }
        }
    }
}
if ($keep) {
    Write-Line 'Restart now, and run the same command again. To undo everything instead: try.ps1 -Undo'
    if (-not $Yes -and (Read-Host 'Restart this machine now? [y/n]') -match '^[yY]') { Restart-Computer }
}
exit $exitCode
