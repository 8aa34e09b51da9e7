[
  {"web", "prod", %{
    rootfs: "images/r.ext4",
    kernal: "vmlinux",
    cmd: ["/run", 4000],
    env: %{PORT: 4000, "A=B" => "x", ON: true},
    resources: %{vcpu: 99, mem: 512},
    lifecycle: "servce",
    warm_pool: %{min: 3, max: 1}
  }},
  {"two words", 7, %{}},
  {"web", %{}},
  {"t", {}},
  "not an entry",
  {"too", "many", %{}, %{}},
  {"spec-is-a-string", "prod"}
]