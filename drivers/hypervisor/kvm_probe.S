# Is KVM real?  The payload that drivers/hypervisor/kvm_probe.py boots; its bytes are the constant PAYLOAD there.
# To make them anew:
#   as --64 -o probe.o kvm_probe.S && ld -m elf_x86_64 -Ttext=0x100000 --oformat binary -o probe.bin probe.o
#
# A flat multiboot image (a.out kludge), loaded at 1 MiB. It enters 32-bit protected mode, builds an identity map of
# 2 MiB pages, enters long mode, takes a #BP through its own IDT, reloads CR3, runs CPUID, and writes 0x10 to
# isa-debug-exit (port 0xf4), so that QEMU exits with (0x10 << 1) | 1 = 33.
#
# The exception is what matters: a /dev/kvm that is emulated by its host gets as far as long mode and fails there.
.code32
.set BASE,0x100000
.globl _start
_start:
mb:     .long 0x1BADB002, 0x00010000, -(0x1BADB002+0x00010000)
        .long mb, mb, edata, edata, entry
entry:  cli
        movl $stack, %esp
        movl $pml4, %edi          # clear 3 page tables
        xorl %eax,%eax
        movl $3072,%ecx
        rep stosl
        movl $pdpt+3, pml4
        movl $pd+3, pdpt
        movl $0x83, pd            # 0..2 MiB
        movl $0x200083, pd+8
        movl $pml4,%eax
        movl %eax,%cr3
        movl %cr4,%eax
        orl $0x20,%eax            # PAE
        movl %eax,%cr4
        movl $0xC0000080,%ecx     # EFER.LME
        rdmsr
        orl $0x100,%eax
        wrmsr
        movl %cr0,%eax
        orl $0x80000001,%eax      # PG|PE
        movl %eax,%cr0
        lgdt gdtr
        ljmp $8,$long
.code64
long:   movw $16,%ax
        movw %ax,%ds
        movw %ax,%es
        movw %ax,%ss
        movl $stack,%esp
        # IDT entry 3 -> bp
        movl $idt,%edi
        xorl %eax,%eax
        movl $64,%ecx
        rep stosl
        movl $bp,%eax
        movl $idt+48,%edi
        movw %ax,(%rdi)
        movw $8,2(%rdi)
        movw $0x8E00,4(%rdi)
        shrl $16,%eax
        movw %ax,6(%rdi)
        lidt idtr
        int3
1:      hlt                        # not reached
        jmp 1b
bp:     movq %cr3,%rax
        movq %rax,%cr3             # TLB flush
        xorl %eax,%eax
        cpuid
        movb $0x10,%al
        outb %al,$0xf4
2:      hlt
        jmp 2b
.align 8
gdt:    .quad 0, 0x00AF9A000000FFFF, 0x00CF92000000FFFF
gdtr:   .word 23
        .long gdt, 0
idtr:   .word 255
        .quad idt
.align 16
edata:
.set pml4, BASE+0x2000
.set pdpt, BASE+0x3000
.set pd,   BASE+0x4000
.set idt,  BASE+0x5000
.set stack,BASE+0x7000
