# Guests that never stop. They use the macros of guests.s.
.pushsection .rodata.stub_storms, "a"

# Bytes on the serial port.
.globl stub_serial_flood
stub_serial_flood:
    PRINT 9f, 6
    mov edx, {serial}
    mov al, 'x'
3:  out dx, al
    jmp 3b
9:  .ascii "ready\n"
.globl stub_serial_flood_end
stub_serial_flood_end:

# A disk that is broken by a descriptor outside of memory, notified and misused while it is, reset, and so on.
.globl stub_notify_storm
stub_notify_storm:
    MAP_DEVICES
    PRINT 9f, 6
4:  DISK_REQUEST
    mov dword ptr [0x200004], 0xff
    VIRTIO_WRITES 8f
    mov ecx, 50
5:  mov dword ptr [rdi + 0x50], 0
    mov word ptr [rdi + 0x50], 0
    mov dword ptr [rdi + 0xffc], ecx
    dec ecx
    jnz 5b
    jmp 4b
8:
    VIRTIO_TABLE
9:  .ascii "ready\n"
.globl stub_notify_storm_end
stub_notify_storm_end:

# Each interrupt of the disk asks for the next.
.globl stub_interrupt_storm
stub_interrupt_storm:
    MAP_DEVICES
    DISK_REQUEST
    HANDLE_INTERRUPTS 5f
    ROUTE_PIN {pin}, 0x40
    xor ebp, ebp
    VIRTIO_WRITES 8f
    sti
4:  hlt
    jmp 4b
# The handler. The hundredth says that the storm is on.
5:  inc ebp
    cmp ebp, 100
    jne 6f
    PRINT 9f, 6
6:  inc word ptr [0x201002]
    mov edi, {virtio}
    mov dword ptr [rdi + 0x64], 1
    mov dword ptr [rdi + 0x50], 0
    mov edi, 0xfee00000
    mov dword ptr [rdi + 0xb0], 0
    iretq
8:
    VIRTIO_TABLE
9:  .ascii "ready\n"
.globl stub_interrupt_storm_end
stub_interrupt_storm_end:

# The second vCPU fills the disk's queue as fast as it is emptied, with reads of a megabyte; the first notifies.
# Rings at 0x5_0000, where the second reaches them in 16-bit mode.
.globl stub_disk_flood
stub_disk_flood:
    MAP_DEVICES
    mov edi, 0x50000
    mov dword ptr [rdi], 0x53000
    mov dword ptr [rdi + 8], 16
    mov dword ptr [rdi + 12], 0x00010001
    mov dword ptr [rdi + 16], 0x400000
    mov dword ptr [rdi + 24], 0x100000
    mov dword ptr [rdi + 28], 0x00020003
    mov dword ptr [rdi + 32], 0x55000
    mov dword ptr [rdi + 40], 1
    mov dword ptr [rdi + 44], 0x00000002
    VIRTIO_WRITES 8f
    START_VCPUS 7f, 1, 0
# Until the second has begun. The first notification comes back although the queue never is empty.
3:  cmp word ptr [0x51002], 0
    je 3b
    mov edi, {virtio}
    mov dword ptr [rdi + 0x50], 0
    PRINT 9f, 6
    mov edi, {virtio}
4:  mov dword ptr [rdi + 0x50], 0
    jmp 4b
7:
.code16
    mov ax, 0x5000
    mov ds, ax
6:  mov ax, [0x1002]
    mov bx, ax
    sub bx, [0x2002]
    cmp bx, 250
    jae 6b
    inc ax
    mov [0x1002], ax
    jmp 6b
.code64
8:
    .long 0x70, 0, 0x70, 1, 0x70, 3
    .long 0x24, 0, 0x20, 0, 0x24, 1, 0x20, 1
    .long 0x70, 11
    .long 0x30, 0, 0x38, 256
    .long 0x80, 0x50000, 0x84, 0, 0x90, 0x51000, 0x94, 0, 0xa0, 0x52000, 0xa4, 0, 0x44, 1
    .long 0x70, 15, 0xffff
9:  .ascii "ready\n"
.globl stub_disk_flood_end
stub_disk_flood_end:

# The first virtio device is a socket device: one connection after the other to port 99 of the host, from a new port
# each time. Rings of queue N at 0x20_0000 + N * 0x1_0000; what comes back goes to 0x24_0000, over and over.
.globl stub_vsock_flood
stub_vsock_flood:
    MAP_DEVICES
    mov edi, 0x200000    # receive: one buffer of a page
    mov dword ptr [rdi], 0x240000
    mov dword ptr [rdi + 8], 4096
    mov dword ptr [rdi + 12], 0x00000002
    mov edi, 0x210000    # transmit: one packet, a header
    mov dword ptr [rdi], 0x250000
    mov dword ptr [rdi + 8], 44
    mov edi, 0x250000
    mov dword ptr [rdi], 3    # from the guest
    mov dword ptr [rdi + 8], 2    # to the host
    mov dword ptr [rdi + 20], 99
    mov dword ptr [rdi + 28], 0x00010001    # a stream, a request
    VIRTIO_WRITES 8f
    PRINT 9f, 6
    mov edi, {virtio}
4:  mov ax, [0x202002]    # as many receive buffers as there is room for
    add ax, 8
    mov [0x201002], ax
    mov dword ptr [rdi + 0x50], 0
    inc dword ptr [0x250010]    # the next port
    inc word ptr [0x211002]
    mov dword ptr [rdi + 0x50], 1
    mov ecx, 100000    # until the packet was taken, or for a while: then it waits with the next
5:  mov ax, [0x212002]
    cmp ax, [0x211002]
    je 4b
    mov dword ptr [rdi + 0x50], 0
    dec ecx
    jnz 5b
    jmp 4b
8:
    .long 0x70, 0, 0x70, 1, 0x70, 3
    .long 0x24, 0, 0x20, 0, 0x24, 1, 0x20, 1
    .long 0x70, 11
    .long 0x30, 0, 0x38, 8
    .long 0x80, 0x200000, 0x84, 0, 0x90, 0x201000, 0x94, 0, 0xa0, 0x202000, 0xa4, 0, 0x44, 1
    .long 0x30, 1, 0x38, 8
    .long 0x80, 0x210000, 0x84, 0, 0x90, 0x211000, 0x94, 0, 0xa0, 0x212000, 0xa4, 0, 0x44, 1
    .long 0x30, 2, 0x38, 8
    .long 0x80, 0x220000, 0x84, 0, 0x90, 0x221000, 0x94, 0, 0xa0, 0x222000, 0xa4, 0, 0x44, 1
    .long 0x70, 15, 0xffff
9:  .ascii "ready\n"
.globl stub_vsock_flood_end
stub_vsock_flood_end:
.popsection
