<#
.SYNOPSIS
Makes a Hyper-V machine from a Windows ISO, runs try.ps1 in it, and copies its results out.

.DESCRIPTION
Run it as administrator on Windows with Hyper-V and Python 3 (for the web server). The image is applied to a new disk
without Windows Setup; the machine has Secure Boot off and one network, which leads only to this host.
The machine, its disk and its switch are removed at the end, also after an error or Ctrl-C; the results stay.

Not yet run on any Windows. Exit status: that of try.ps1, or 2 if it did not get that far.

.EXAMPLE
powershell -ExecutionPolicy Bypass -File hyperv.ps1 -Iso Windows.iso -Package sluice-0.1.0-x64.zip
#>
[CmdletBinding()]
param(
    [string] $Iso = '',
    [string] $Package = '',
    # The folder for the machine and its results.
    [string] $Folder = 'sluice-vm',
    # Which edition of the ISO.
    [int] $Index = 1,
    [int] $MemoryMiB = 4096,
    # When to give up.
    [int] $Hours = 2,
    [switch] $Verifier
)

Set-StrictMode -Version 3.0
$ErrorActionPreference = 'Stop'

$Name = 'sluice-try'
$System32 = Join-Path $env:SystemRoot 'System32'
$Blocked = @('192.0.2.66', '2001:db8:5::66')
$Permitted = @('192.0.2.10', '2001:db8:5::10')
$Guest = @('192.0.2.2', '2001:db8:5::2')
$script:Server = $null
$script:Mounted = $false

function Start-Program([string] $Program, [string] $Arguments) {
    $start = New-Object System.Diagnostics.ProcessStartInfo
    $start.FileName = $Program
    $start.Arguments = $Arguments
    $start.UseShellExecute = $false
    [System.Diagnostics.Process]::Start($start)
}

function Open-Disk {
    $script:Mounted = $true
    Mount-VHD -Path $Disk -Passthru | Get-Disk
}

function Close-Disk {
    if ($script:Mounted) { Dismount-VHD -Path $Disk }
    $script:Mounted = $false
}

function Find-Letter($Partition) {
    @($Partition | Get-Volume)[0].DriveLetter
}

# Makes a disk with the image, our folder, and the answers for its first start.
function New-Disk {
    [void] (New-VHD -Path $Disk -SizeBytes 68719476736 -Dynamic)
    $number = @(Open-Disk)[0].Number
    [void] (Initialize-Disk -Number $number -PartitionStyle GPT)
    $efi = New-Partition -DiskNumber $number -Size 268435456 -AssignDriveLetter
    [void] ($efi | Format-Volume -FileSystem FAT32)
    $windows = New-Partition -DiskNumber $number -UseMaximumSize -AssignDriveLetter
    [void] ($windows | Format-Volume -FileSystem NTFS)
    $boot = Find-Letter $efi
    $system = Find-Letter $windows
    $image = @(Mount-DiskImage -ImagePath $IsoFile -PassThru | Get-Volume)[0].DriveLetter
    $source = "${image}:\sources\install.wim"
    if (-not (Test-Path -LiteralPath $source)) { $source = "${image}:\sources\install.esd" }
    [void] (Expand-WindowsImage -ImagePath $source -Index $Index -ApplyPath "${system}:\")
    [void] (Dismount-DiskImage -ImagePath $IsoFile)
    $bcdboot = Start-Program (Join-Path $System32 'bcdboot.exe') "${system}:\Windows /s ${boot}: /f UEFI"
    $bcdboot.WaitForExit()
    if ($bcdboot.ExitCode -ne 0) { throw "bcdboot ended with $($bcdboot.ExitCode)" }
    # It becomes an EFI system partition only now, because that gets no drive letter.
    $efi | Set-Partition -GptType '{c12a7328-f81f-11d2-ba4b-00a0c93ec93b}'

    $answers = [System.IO.File]::ReadAllText((Join-Path $PSScriptRoot 'autounattend.xml'))
    $architecture = $env:PROCESSOR_ARCHITECTURE.ToLowerInvariant()
    $answers = $answers.Replace('@ARCHITECTURE@', $architecture).Replace('@INDEX@', "$Index").Replace('@KEY@', '')
    [void] (New-Item -ItemType Directory -Force -Path "${system}:\Windows\Panther")
    [System.IO.File]::WriteAllText("${system}:\Windows\Panther\unattend.xml", $answers)

    $there = "${system}:\sluice"
    Add-Type -AssemblyName System.IO.Compression.FileSystem
    [System.IO.Compression.ZipFile]::ExtractToDirectory($PackageFile, $there)
    $try = @(Get-ChildItem -Path $there -Filter 'try.ps1' -Recurse)
    if ($try.Count -ne 1) { throw "$PackageFile contains $($try.Count) files try.ps1" }
    if ($try[0].DirectoryName -ne $there) {
        Copy-Item -Path (Join-Path $try[0].DirectoryName '*') -Destination $there -Recurse
    }
    Copy-Item -LiteralPath (Join-Path $PSScriptRoot 'guest.ps1') -Destination $there
    $order = @{
        blocked = $Blocked -join ','
        permitted = $Permitted -join ','
        verifier = $Verifier.IsPresent
        addresses = $Guest
    }
    [System.IO.File]::WriteAllText("$there\order.json", (ConvertTo-Json $order))
    Close-Disk
}

function Start-Network {
    [void] (New-VMSwitch -Name $Name -SwitchType Internal)
    $alias = "vEthernet ($Name)"
    foreach ($address in $Blocked + $Permitted) {
        $length = 24
        if ($address.Contains(':')) { $length = 64 }
        [void] (New-NetIPAddress -InterfaceAlias $alias -IPAddress $address -PrefixLength $length)
    }
    [void] (New-NetFirewallRule -Name $Name -DisplayName $Name -Direction Inbound -Action Allow -Protocol TCP `
            -LocalPort 80 -InterfaceAlias $alias)
    # Until the addresses are no longer tentative.
    Start-Sleep -Seconds 10
    $server = Join-Path $PSScriptRoot 'server.py'
    $script:Server = Start-Program 'python.exe' "`"$server`" 80 $($Blocked -join ' ') $($Permitted -join ' ')"
}

function Invoke-Machine {
    $memory = $MemoryMiB * 1048576
    [void] (New-VM -Name $Name -Generation 2 -MemoryStartupBytes $memory -VHDPath $Disk -SwitchName $Name)
    Set-VMFirmware -VMName $Name -EnableSecureBoot Off
    Set-VM -Name $Name -AutomaticCheckpointsEnabled $false
    Start-VM -Name $Name
    $end = [System.DateTime]::UtcNow.AddHours($Hours)
    while ("$((Get-VM -Name $Name).State)" -ne 'Off') {
        if ([System.DateTime]::UtcNow -gt $end) { throw "the machine did not turn itself off within $Hours hours" }
        Start-Sleep -Seconds 10
    }
}

# Copies what the machine left in its folder; returns the status of try.ps1.
function Receive-Results {
    $letters = @(Open-Disk | Get-Partition | Get-Volume | ForEach-Object { $_.DriveLetter })
    $status = 2
    foreach ($letter in $letters) {
        $there = "${letter}:\sluice"
        if (-not (Test-Path -LiteralPath "$there\results")) { continue }
        $here = Join-Path $FolderPath "results-$(Get-Date -Format 'yyyyMMdd-HHmmss')"
        Copy-Item -LiteralPath "$there\results" -Destination $here -Recurse
        Write-Host ([System.IO.File]::ReadAllText((Join-Path $here 'try.log')))
        $word = [System.IO.File]::ReadAllText("$there\status.txt")
        Write-Host "try.ps1: ${word}; results in $here"
        if ($word -match '^\d+$') { $status = [int] $word }
    }
    Close-Disk
    $status
}

# Removes one thing, whether or not it exists.
function Remove-One([string] $What, [scriptblock] $Body) {
    try { [void] (& $Body) } catch { Write-Host "LEFT ${What}: $($_.Exception.Message)" }
}

function Remove-Everything {
    Remove-One 'the mounted disk' { Close-Disk }
    Remove-One 'the mounted ISO' { Dismount-DiskImage -ImagePath $IsoFile }
    Remove-One 'the web server' {
        if ($null -ne $script:Server -and -not $script:Server.HasExited) { $script:Server.Kill() }
    }
    Remove-One 'the machine' {
        foreach ($machine in @(Get-VM | Where-Object { $_.Name -eq $Name })) {
            if ("$($machine.State)" -ne 'Off') { Stop-VM -Name $Name -TurnOff -Force }
            Remove-VM -Name $Name -Force
        }
    }
    Remove-One 'the firewall rule' { Get-NetFirewallRule | Where-Object { $_.Name -eq $Name } | Remove-NetFirewallRule }
    Remove-One 'the switch' { Get-VMSwitch | Where-Object { $_.Name -eq $Name } | Remove-VMSwitch -Force }
    Remove-One 'the disk' { if (Test-Path -LiteralPath $Disk) { Remove-Item -LiteralPath $Disk } }
}

foreach ($file in $Iso, $Package) {
    if ($file -eq '' -or -not (Test-Path -LiteralPath $file)) {
        Write-Host 'usage: hyperv.ps1 -Iso WINDOWS.iso -Package sluice-VERSION-x64.zip (see Get-Help)'
        exit 2
    }
}
$IsoFile = (Get-Item -LiteralPath $Iso).FullName
$PackageFile = (Get-Item -LiteralPath $Package).FullName
$FolderPath = (New-Item -ItemType Directory -Force -Path $Folder).FullName
$Disk = Join-Path $FolderPath 'disk.vhdx'
if ((Test-Path -LiteralPath $Disk) -or @(Get-VM | Where-Object { $_.Name -eq $Name }).Count -gt 0) {
    Write-Host "a machine $Name or a disk $Disk already exists: remove it first"
    exit 2
}
$exitCode = 2
try {
    New-Disk
    Start-Network
    Invoke-Machine
    $exitCode = Receive-Results
} catch {
    Write-Host "stopped: $($_.Exception.Message)"
} finally {
    Remove-Everything
}
exit $exitCode
