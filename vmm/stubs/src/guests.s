# The guests' code. See code.rs for the state in which they are entered; braces are constants of machine.rs.

# Other vCPUs start at `code`, 64 bytes of 16-bit code, which are copied to 0x4000. The local APIC goes to x2APIC mode, so
# that it needs no mapping; then INIT and two STARTUPs go to APIC `apic`, or where the `shorthand` of the command says.
.macro START_VCPUS code, apic, shorthand
    lea rsi, [rip + \code]
    mov edi, 0x4000
    mov ecx, 64
    rep movsb
    mov ecx, 0x1b
    rdmsr
    or eax, 0xc00
    wrmsr
    mov ecx, 0x80f
    xor edx, edx
    mov eax, 0x1ff
    wrmsr
    mov ecx, 0x830
    mov edx, \apic
    mov eax, 0x4500 + \shorthand
    wrmsr
    mov eax, 0x4604 + \shorthand
    wrmsr
    wrmsr
.endm

# Vectors 0x40 and 0x41 go to `handler`: 64-bit interrupt gates into our own code segment, the table at 0x26_0000, its
# descriptor and the stack below 0x27_0000. Then the local APIC is switched on.
.macro HANDLE_INTERRUPTS handler
    mov esp, 0x26fff0
    lea rax, [rip + \handler]
    mov edi, 0x260400
    mov [rdi], ax
    mov cx, cs
    mov [rdi + 2], cx
    mov word ptr [rdi + 4], 0x8e00
    shr eax, 16
    mov [rdi + 6], ax
    mov rax, [rdi]
    mov [rdi + 16], rax
    mov word ptr [rsp], 0x42 * 16 - 1
    mov dword ptr [rsp + 2], 0x260000
    lidt [rsp]
    mov edi, 0xfee00000
    mov dword ptr [rdi + 0xf0], 0x1ff    # spurious interrupt vector register: software enable
.endm

# The I/O APIC's `pin` sends `vector`, edge-triggered and unmasked, to APIC 0.
.macro ROUTE_PIN pin, vector
    mov edi, 0xfec00000
    mov dword ptr [rdi], 0x10 + 2 * \pin
    mov dword ptr [rdi + 0x10], \vector
    mov dword ptr [rdi], 0x11 + 2 * \pin
    mov dword ptr [rdi + 0x10], 0
.endm

# Prints `length` bytes at `address`, one port write for each.
.macro PRINT address, length
    lea rsi, [rip + \address]
    PRINT_RSI \length
.endm
.macro PRINT_RSI length
    mov edx, {serial}
    mov ecx, \length
21:  outsb
    dec ecx
    jnz 21b
.endm
# Resets through the keyboard controller.
.macro RESET
    mov al, 0xfe
    out {keyboard}, al
    HALT
.endm
.macro POWER_OFF
    mov edx, {sleep_control}
    mov al, {sleep_s5}
    out dx, al
    HALT
.endm
.macro HALT
21:  cli
    hlt
    jmp 21b
.endm
# Maps the two megabytes at 3 GiB (virtio, events) and those of the I/O and local APICs, one to one, uncached,
# with a page directory of our own at 0x28_0000.
.macro MAP_DEVICES
    mov rax, cr3
    mov rax, [rax]    # the first entry of the top level
    and rax, -4096
    mov qword ptr [rax + 3 * 8], 0x280003    # its fourth gigabyte
    mov edi, 0x280000
    mov eax, 0xc000009b
    mov [rdi], rax
    mov eax, 0xfec0009b
    mov [rdi + 8 * 502], rax
    mov eax, 0xfee0009b
    mov [rdi + 8 * 503], rax
    mov rax, cr3
    mov cr3, rax
.endm
# Writes pairs of (register, value) from `table` to the first virtio device, up to a register of 0xffff.
.macro VIRTIO_WRITES table
    lea rsi, [rip + \table]
    mov edi, {virtio}
21:  lodsd
    cmp eax, 0xffff
    je 22f
    mov ebx, eax
    lodsd
    mov [rdi + rbx], eax
    jmp 21b
22:
.endm
# Queue 0 at 0x20_0000 (descriptors), 0x20_1000 (available), 0x20_2000 (used); a request that reads sector 0:
# header at 0x20_3000, data at 0x20_4000, status at 0x20_5000. Memory is zero where it is not written here.
.macro DISK_REQUEST
    mov edi, 0x200000
    mov dword ptr [rdi], 0x203000
    mov dword ptr [rdi + 8], 16
    mov dword ptr [rdi + 12], 0x00010001    # NEXT, 1
    mov dword ptr [rdi + 16], 0x204000
    mov dword ptr [rdi + 24], 512
    mov dword ptr [rdi + 28], 0x00020003    # NEXT and WRITE, 2
    mov dword ptr [rdi + 32], 0x205000
    mov dword ptr [rdi + 40], 1
    mov dword ptr [rdi + 44], 0x00000002    # WRITE
    mov dword ptr [rdi + 0x1000], 0x00010000    # available: no flags, index 1, entry 0 is descriptor 0
.endm
# The register writes that bring a disk up with queue 0 of 8 descriptors, and notify it.
.macro VIRTIO_TABLE
    .long 0x70, 0, 0x70, 1, 0x70, 3    # reset, ACKNOWLEDGE, DRIVER
    .long 0x24, 0, 0x20, 0, 0x24, 1, 0x20, 1    # of the features only VERSION_1
    .long 0x70, 11    # FEATURES_OK
    .long 0x30, 0, 0x38, 8
    .long 0x80, 0x200000, 0x84, 0, 0x90, 0x201000, 0x94, 0, 0xa0, 0x202000, 0xa4, 0, 0x44, 1
    .long 0x70, 15, 0x50, 0, 0xffff    # DRIVER_OK, notify
.endm
# Guests that end in different ways.
.pushsection .rodata.stub_guests, "a"
.globl stub_hello
stub_hello:
    PRINT 9f, 5
    RESET
9:  .ascii "stub\n"
.globl stub_hello_end
stub_hello_end:

.globl stub_acpi_reset
stub_acpi_reset:
    PRINT 9f, 5
    mov edx, {reset}
    mov al, {reset_value}
    out dx, al
    HALT
9:  .ascii "acpi\n"
.globl stub_acpi_reset_end
stub_acpi_reset_end:

.globl stub_power_off
stub_power_off:
    PRINT 9f, 4
    POWER_OFF
9:  .ascii "off\n"
.globl stub_power_off_end
stub_power_off_end:

.globl stub_panic
stub_panic:
    PRINT 9f, 6
    mov edx, {pvpanic}
    mov al, 1
    out dx, al
    HALT
9:  .ascii "panic\n"
.globl stub_panic_end
stub_panic_end:

.globl stub_triple_fault
stub_triple_fault:
    PRINT 9f, 6
    lidt [rip + 8f]
    ud2
    HALT
8:  .word 0
    .quad 0
9:  .ascii "fault\n"
.globl stub_triple_fault_end
stub_triple_fault_end:

.globl stub_idle
stub_idle:
    PRINT 9f, 6
    HALT
9:  .ascii "ready\n"
.globl stub_idle_end
stub_idle_end:

.globl stub_power_button
stub_power_button:
    MAP_DEVICES
    PRINT 9f, 6
    mov edi, {events}
3:  mov eax, [rdi]
    test al, {power_button}
    jz 3b
    POWER_OFF
9:  .ascii "ready\n"
.globl stub_power_button_end
stub_power_button_end:

.globl stub_echo
stub_echo:
    PRINT 9f, 6
3:  mov edx, {serial} + 5    # line status
    in al, dx
    test al, 1    # data ready
    jz 3b
    mov edx, {serial}
    in al, dx
    out dx, al
    cmp al, 10
    jne 3b
    RESET
9:  .ascii "ready\n"
.globl stub_echo_end
stub_echo_end:

.globl stub_nothing_there
stub_nothing_there:
    mov edx, 0xcf8
    in eax, dx
    cmp eax, -1
    jne 3f
    MAP_DEVICES
    mov edi, 0xc01ff000
    mov dword ptr [rdi], 1
    cmp dword ptr [rdi], -1
    jne 3f
    PRINT 9f, 8
3:  RESET
9:  .ascii "nothing\n"
.globl stub_nothing_there_end
stub_nothing_there_end:
# Guests that use a disk.
.globl stub_disk_read
stub_disk_read:
    MAP_DEVICES
    DISK_REQUEST
    VIRTIO_WRITES 8f
3:  cmp word ptr [0x202002], 1    # the used index
    jne 3b
    mov esi, 0x204000
    PRINT_RSI 16
    RESET
8:
    VIRTIO_TABLE
.globl stub_disk_read_end
stub_disk_read_end:

.globl stub_disk_erase
stub_disk_erase:
    MAP_DEVICES
# Two requests of three descriptors each: DISCARD of sectors 0 to 7, and WRITE_ZEROES of sectors 8 to 15.
    mov edi, 0x200000
    mov dword ptr [rdi], 0x203000
    mov dword ptr [rdi + 8], 16
    mov dword ptr [rdi + 12], 0x00010001    # NEXT, 1
    mov dword ptr [rdi + 16], 0x203100
    mov dword ptr [rdi + 24], 16
    mov dword ptr [rdi + 28], 0x00020001
    mov dword ptr [rdi + 32], 0x205000
    mov dword ptr [rdi + 40], 1
    mov dword ptr [rdi + 44], 0x00000002    # WRITE
    mov dword ptr [rdi + 48], 0x203010
    mov dword ptr [rdi + 56], 16
    mov dword ptr [rdi + 60], 0x00040001
    mov dword ptr [rdi + 64], 0x203110
    mov dword ptr [rdi + 72], 16
    mov dword ptr [rdi + 76], 0x00050001
    mov dword ptr [rdi + 80], 0x205001
    mov dword ptr [rdi + 88], 1
    mov dword ptr [rdi + 92], 0x00000002
    mov dword ptr [rdi + 0x1000], 0x00020000    # available: no flags, index 2, entries 0 and 3
    mov dword ptr [rdi + 0x1004], 0x00030000
    mov dword ptr [rdi + 0x3000], 11    # the headers' types
    mov dword ptr [rdi + 0x3010], 13
    mov dword ptr [rdi + 0x3108], 8    # how many sectors, from which
    mov dword ptr [rdi + 0x3110], 8
    mov dword ptr [rdi + 0x3118], 8
    mov word ptr [rdi + 0x5000], 0xffff    # no status yet
    VIRTIO_WRITES 8f
3:  cmp word ptr [0x202002], 2    # the used index
    jne 3b
    cmp word ptr [0x205000], 0    # both done
    jne 4f
    PRINT 9f, 7
4:  RESET
8:
    .long 0x70, 0, 0x70, 1, 0x70, 3    # as below, with the features DISCARD and WRITE_ZEROES
    .long 0x24, 0, 0x20, 0x6000, 0x24, 1, 0x20, 1
    .long 0x70, 11
    .long 0x30, 0, 0x38, 8
    .long 0x80, 0x200000, 0x84, 0, 0x90, 0x201000, 0x94, 0, 0xa0, 0x202000, 0xa4, 0, 0x44, 1
    .long 0x70, 15, 0x50, 0, 0xffff
9:  .ascii "erased\n"
.globl stub_disk_erase_end
stub_disk_erase_end:

.globl stub_disk_interrupt
stub_disk_interrupt:
    MAP_DEVICES
    DISK_REQUEST
    HANDLE_INTERRUPTS 5f
    ROUTE_PIN {pin}, 0x40
    VIRTIO_WRITES 8f
    sti
4:  hlt
    jmp 4b
# The handler: nothing to come back to.
5:  mov esi, 0x204000
    PRINT_RSI 16
    RESET
8:
    VIRTIO_TABLE
.globl stub_disk_interrupt_end
stub_disk_interrupt_end:

# Rounds of reads, one request at a time with all that a driver does for one: notification, interrupt, acknowledgement.
# During a round no interrupt is taken, so that nothing else is done. Between rounds it sleeps: a line's end that is typed
# in asks for another round, anything else for the end.
.globl stub_disk_rounds
stub_disk_rounds:
    MAP_DEVICES
    DISK_REQUEST
    HANDLE_INTERRUPTS 5f
    ROUTE_PIN {pin}, 0x40
    ROUTE_PIN 4, 0x41    # the serial port's
    mov edx, {serial} + 1    # interrupt enable
    mov al, 1    # data ready
    out dx, al
    VIRTIO_WRITES 8f
2:  mov edi, {virtio}
    mov ebp, {disk_round}
3:  mov byte ptr [0x205000], 0xff    # no status yet
    inc word ptr [0x201002]    # entry 0 of the ring is as good as any: all are zero
    mov dword ptr [rdi + 0x50], 0
    mov ax, [0x201002]
4:  cmp ax, [0x202002]    # the used index
    jne 4b
    cmp byte ptr [0x205000], 0
    jne 6f
    mov dword ptr [rdi + 0x64], 1
    dec ebp
    jnz 3b
    PRINT 9f, 6
4:  mov edx, {serial} + 5    # line status
    in al, dx
    test al, 1    # data ready
    jnz 4f
    sti
    hlt
    cli
    jmp 4b
4:  mov edx, {serial}
    in al, dx
    cmp al, 10
    je 2b
6:  RESET
# The handler: there is something to look at.
5:  mov edi, 0xfee00000
    mov dword ptr [rdi + 0xb0], 0
    iretq
8:
    VIRTIO_TABLE
9:  .ascii "ready\n"
.globl stub_disk_rounds_end
stub_disk_rounds_end:
# A guest that uses a network interface. Queue 0 (receive) at 0x20_0000 as a disk's; queue 1 (send) at 0x20_3000,
# 0x20_4000, 0x20_5000; one buffer at 0x21_0000 for both.
.globl stub_net_echo
stub_net_echo:
    MAP_DEVICES
    mov edi, 0x200000
    mov dword ptr [rdi], 0x210000
    mov dword ptr [rdi + 8], 0x1000
    mov dword ptr [rdi + 12], 0x00000002    # WRITE
    mov dword ptr [rdi + 0x1000], 0x00010000    # available: no flags, index 1, entry 0 is descriptor 0
    VIRTIO_WRITES 8f
    PRINT 7f, 6
3:  cmp word ptr [0x202002], 1    # the used index
    jne 3b
# Behind the header of 12 bytes: addresses of Ethernet, of IPv4 and ports of UDP change places, which no checksum minds.
    mov edi, 0x21000c
    mov eax, [rdi]
    xchg eax, [rdi + 6]
    mov [rdi], eax
    mov ax, [rdi + 4]
    xchg ax, [rdi + 10]
    mov [rdi + 4], ax
    mov eax, [rdi + 26]
    xchg eax, [rdi + 30]
    mov [rdi + 26], eax
    mov ax, [rdi + 34]
    xchg ax, [rdi + 36]
    mov [rdi + 34], ax
    mov eax, [0x202008]    # the length that was received
    mov edi, 0x203000
    mov dword ptr [rdi], 0x210000
    mov [rdi + 8], eax
    mov dword ptr [rdi + 0x1000], 0x00010000
    mov edi, {virtio}
    mov dword ptr [rdi + 0x50], 1
4:  cmp word ptr [0x205002], 1
    jne 4b
    PRINT 9f, 5
    RESET
7:  .ascii "ready\n"
9:  .ascii "echo\n"
8:
    .long 0x70, 0, 0x70, 1, 0x70, 3    # reset, ACKNOWLEDGE, DRIVER
    .long 0x24, 0, 0x20, 0, 0x24, 1, 0x20, 1    # of the features only VERSION_1
    .long 0x70, 11    # FEATURES_OK
    .long 0x30, 0, 0x38, 8
    .long 0x80, 0x200000, 0x84, 0, 0x90, 0x201000, 0x94, 0, 0xa0, 0x202000, 0xa4, 0, 0x44, 1
    .long 0x30, 1, 0x38, 8
    .long 0x80, 0x203000, 0x84, 0, 0x90, 0x204000, 0x94, 0, 0xa0, 0x205000, 0xa4, 0, 0x44, 1
    .long 0x70, 15, 0x50, 0, 0xffff    # DRIVER_OK, notify
.globl stub_net_echo_end
stub_net_echo_end:
# Guests that need more than one mode of the processor.
.globl stub_second_cpu
stub_second_cpu:
    START_VCPUS 7f, 1, 0
    HALT
7:
.code16
    mov dx, {serial}
    mov al, 'A'
    out dx, al
    mov al, 'P'
    out dx, al
    mov al, 10
    out dx, al
    mov al, 0xfe
    out {keyboard}, al
6:  hlt
    jmp 6b
.code64
8:
.globl stub_second_cpu_end
stub_second_cpu_end:
# Every virtio device prints what it is ('0' and its type), then a line's end; then every other vCPU prints a 'c'. A byte
# that comes from the serial port resets.
.globl stub_fleet
stub_fleet:
    MAP_DEVICES
    mov edi, {virtio}
    mov edx, {serial}
3:  cmp dword ptr [rdi], 0x74726976
    jne 4f
    mov eax, [rdi + 8]
    add al, '0'
    out dx, al
    add edi, 0x1000
    jmp 3b
4:  mov al, 10
    out dx, al
    START_VCPUS 7f, 0, 0xc0000    # all others at once
    mov edx, {serial} + 5
5:  pause
    in al, dx
    test al, 1
    jz 5b
    RESET
7:
.code16
    mov dx, {serial}
    mov al, 'c'
    out dx, al
6:  hlt
    jmp 6b
.code64
.globl stub_fleet_end
stub_fleet_end:
# Maps the boot timer's page, as MAP_DEVICES does the others.
.globl stub_booted
stub_booted:
    mov rax, cr3
    mov rax, [rax]
    and rax, -4096
    mov qword ptr [rax + 3 * 8], 0x280003
    mov edi, 0x280000
    mov eax, 0xd000009b
    mov [rdi + 8 * 128], rax
    mov rax, cr3
    mov cr3, rax
    mov edi, 0xd0000000
    mov byte ptr [rdi], 123
    mov byte ptr [rdi], 123
    PRINT 9f, 7
    RESET
9:  .ascii "booted\n"
.globl stub_booted_end
stub_booted_end:
# Prints the lowest bits of leaf 0x8000_0002's EAX and of KERNEL_GS_BASE, as digits.
.globl stub_features
stub_features:
    mov esp, 0x270000
    mov eax, 0x80000002
    cpuid
    call 3f
    mov ecx, 0xc0000102
    rdmsr
    call 3f
    mov edx, {serial}
    mov al, 10
    out dx, al
    RESET
3:  and al, 1
    add al, '0'
    mov edx, {serial}
    out dx, al
    ret
.globl stub_features_end
stub_features_end:
# Calls through the back door: the table of calls follows, 72 bytes each, up to one whose number is -1. A result that is
# still what it was before says that there is no such door.
.globl stub_back_door
stub_back_door:
    lea rdi, [rip + 8f]
    mov rbx, 0x5ec01a115ec01a11
3:  cmp qword ptr [rdi], -1
    je 4f
    mov eax, edi
    mov edx, {back_door}
    out dx, eax
    cmp [rdi + 64], rbx
    je 5f
    add rdi, 72
    jmp 3b
4:  PRINT 9f, 5
    RESET
5:  PRINT 7f, 7
    RESET
7:  .ascii "closed\n"
9:  .ascii "done\n"
8:
.globl stub_back_door_end
stub_back_door_end:
# Entered by PVH: 32-bit, no paging, %ebx points to the start information, whose magic number is checked. Maps
# the first gigabyte with tables at 0x29_0000 and goes on in 64-bit mode.
.code32
.globl stub_pvh_to_long
stub_pvh_to_long:
    cmp dword ptr [ebx], 0x336ec578
    jne 6f
    mov dword ptr [0x290000], 0x291003
    mov dword ptr [0x291000], 0x292003
    mov edi, 0x292000
    mov dword ptr [edi], 0x83    # the first 4 MiB are enough for every guest
    mov dword ptr [edi + 8], 0x200083
    mov eax, 0x290000
    mov cr3, eax
    mov eax, cr4
    or eax, 0x20    # PAE
    mov cr4, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x100    # LME
    wrmsr
# A descriptor table of our own at 0x29_3000, entry 1: 64-bit code.
    mov dword ptr [0x293008], 0x0000ffff
    mov dword ptr [0x29300c], 0x00af9b00
    mov dword ptr [0x293010], 0x30000017    # limit 23, low half of the base
    mov dword ptr [0x293014], 0x00000029
    lgdt [0x293010]
    mov eax, cr0
    or eax, 0x80000001
    mov cr0, eax
# Far jump to 8:load address + 256, where the guest's own code is.
.byte 0xea
.long {long_start}
.word 8
6:  hlt
    jmp 6b
.globl stub_pvh_to_long_end
stub_pvh_to_long_end:
.code64
.popsection
