import Config

config :app, vms: []
