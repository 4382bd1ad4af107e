# The first program of the guest that ci/bench boots: writes one byte to the serial port, resets the machine.
#
# The byte goes straight to the port, not through a terminal, so that the count ends with the kernel's own work. No text
# holds it: it is not valid in UTF-8. The reset goes straight to the keyboard controller's port, where there is one; a
# machine without it is reset by the kernel. Kernel calls: ioperm 173, reboot 169.
        .globl  _start
_start: mov     $173, %eax              # ioperm(0x3f8, 1, 1)
        mov     $0x3f8, %edi
        mov     $1, %esi
        mov     $1, %edx
        syscall
        mov     $173, %eax              # ioperm(0x64, 1, 1)
        mov     $0x64, %edi
        mov     $1, %esi
        mov     $1, %edx
        syscall
        mov     $0x3f8, %edx
        mov     $0xf5, %al
        outb    %al, %dx
        mov     $0xfe, %al
        outb    %al, $0x64
        mov     $169, %eax              # reboot(MAGIC1, MAGIC2, RESTART, 0)
        mov     $0xfee1dead, %edi
        mov     $672274793, %esi
        mov     $0x01234567, %edx
        xor     %r10d, %r10d
        syscall
1:      jmp     1b
