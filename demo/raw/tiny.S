# The smallest guest there is: says one line on the serial port and stops its CPU.
# It needs no kernel, no disk and no support for virtualization beyond /dev/kvm, so it starts in
# milliseconds on machines that can't boot Linux. Firecracker enters it in 64-bit mode.
        .section .text
        .globl _start
_start:
        lea     greeting(%rip), %rsi
        mov     $(greeting_end - greeting), %ecx
        mov     $0x3f8, %edx            # the first serial port's data register
        cld
        rep outsb                       # each byte of the line to the port
stopped:
        hlt
        jmp     stopped                 # an interrupt may wake the CPU; nothing is left to do

greeting:
        .ascii  "hello from a bare guest\n"
greeting_end:
