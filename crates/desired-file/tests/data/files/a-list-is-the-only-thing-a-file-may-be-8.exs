kernel = "vmlinux"
[{"web", %{kernel: kernel}}]
