[
  {"keywords", rootfs: "r.ext4", kernel: "vmlinux", cmd: ~w(/run --fast),
    resources: [vcpu: 0x2, mem_mb: 1_024], lifecycle: :service, env: [A: "1"]},
  {"arrows", %{"rootfs" => "r.ext4", :kernel => "vmlinux", "cmd" => ["/run", "--fast"],
    "resources" => %{"vcpu" => 2, "mem_mb" => 1024}, "lifecycle" => "service", "env" => %{"A" => "1"}}},
  quoted: %{"rootfs": "r.ext4", kernel: ~s(vmlinux), cmd: ["/run", ~S[--fast]],
    resources: %{vcpu: 0b10, mem_mb: 0o2000,}, lifecycle: "service", env: %{A: "1"},},
]