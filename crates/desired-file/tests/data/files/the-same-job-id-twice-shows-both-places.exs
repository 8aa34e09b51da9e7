[
  {"a", %{rootfs: "r.ext4", kernel: "vmlinux", cmd: ["/run"], resources: %{vcpu: 1, mem_mb: 64}, lifecycle: "daemon"}},




  {:a, %{rootfs: "r.ext4", kernel: "vmlinux", cmd: ["/run"], resources: %{vcpu: 1, mem_mb: 64}, lifecycle: "daemon"}}
]