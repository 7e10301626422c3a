# What the file holds is compared in terraform_test.go with what the program reads of it.

variables {
  timeouts    = { connect_timeout = 0.5, rpc_timeout = 0.8 }
  defaults    = {}
  checks      = null
  most_checks = { number = 100, reason = "a quota" }
  most_bytes  = { number = 65536, advice = "make two" }
  targets     = { checkout = { addr = "checkout.internal:443" } }
}

run "none" {
  variables {
    targets = {}
  }
  assert {
    condition     = output.checks == {} && output.names == [] && output.budget == 0
    error_message = "Without targets there is nothing to check."
  }
}

run "some" {
  variables {
    defaults = { tls = true, group = "payments", service_name = "a, b", ca_cert = "/secrets/ca/value" }
    targets = {
      checkout = { addr = "checkout.internal:443", rpc_timeout = "0.5m1.5s", connect_timeout = "250ms", rpc_headers = { authorization = "@/secrets/authorization/value", x-tenant = null, y = "z" } }
      ledger   = { addr = "ledger.internal:443", group = null, rpc_timeout = "", ca_cert = "", rpc_headers = ["a: b", "c: @arn:aws:secretsmanager:eu-central-1:123456789012:secret:c-AbCdEf"] }
      search   = { addr = "search.internal:443", group = "", tls = false, service_name = ["c"], conn_max_age = "0" }
      private  = { addr = "private.internal:443", group = "others", alts = true, service_name = "" }
    }
  }
  assert {
    condition     = yamldecode(output.content).defaults == { tls = true, group = "payments", service_name = "a, b", ca_cert = "/secrets/ca/value", connect_timeout = "0.5s", rpc_timeout = "0.8s" }
    error_message = "The module's time-outs are defaults of the file."
  }
  assert {
    condition     = !contains(keys(yamldecode(output.content).targets.ledger), "group")
    error_message = "A value that is null is not set: in the file it would unset a default."
  }
  assert {
    condition     = jsonencode(output.services) == jsonencode({ checkout = ["a", "b"], ledger = ["a", "b"], search = ["c"], private = [] })
    error_message = "A target's own services, else the default ones; empty text unsets these."
  }
  assert {
    condition     = toset(output.tls) == toset(["checkout", "ledger"])
    error_message = "ALTS, and false, drop the default TLS."
  }
  assert {
    condition     = output.budget == 31.75
    error_message = "The longest check decides. 0.5m1.5s and 250ms are 31.75 s: ${output.budget}."
  }
  assert {
    condition     = toset(output.sources) == toset(["/secrets/ca/value", "/secrets/authorization/value", "arn:aws:secretsmanager:eu-central-1:123456789012:secret:c-AbCdEf"])
    error_message = "What the deployment has to let the program read: ${jsonencode(output.sources)}."
  }
  assert {
    condition     = output.checks["checkout"].query == "target=checkout" && length(output.checks) == 4 && jsonencode(output.invocations) == "[{}]"
    error_message = "Up to 50 targets have a check each; one invocation is enough for 100."
  }
}

run "groups" {
  variables {
    checks  = "group"
    targets = { a = { addr = "a:1", group = "x" }, b = { addr = "b:1", group = "x" }, x = { addr = "c:1" } }
  }
  assert {
    condition     = { for name, check in output.checks : name => "${check.query} ${join(",", check.targets)}" } == { "x (group)" = "group=x a,b", x = "target=x x" }
    error_message = "A check for each group, and for each target without one: also where their names are the same."
  }
}

run "all" {
  variables {
    checks  = "all"
    targets = { a = { addr = "a:1", group = "x" }, b = { addr = "b:1" } }
  }
  assert {
    condition     = { for name, check in output.checks : name => "${check.query} ${join(",", check.targets)}" } == { "(all)" = " a,b" }
    error_message = "One check asks for everything."
  }
}

run "fifty_one" {
  variables {
    targets = { for i in range(51) : "t${i}" => { addr = "t:${i}", group = i < 50 ? "g${i % 2}" : null } }
  }
  assert {
    condition     = toset(keys(output.checks)) == toset(["g0 (group)", "g1 (group)", "t50"])
    error_message = "Beyond 50 targets each group has a check: ${jsonencode(keys(output.checks))}."
  }
}

run "hundred_and_one" {
  variables {
    targets = { for i in range(101) : "t${i}" => { addr = "t:${i}", group = i < 99 ? "g" : null } }
  }
  assert {
    condition     = jsonencode(output.invocations) == "[{\"group\":\"g\"},{\"target\":\"t100\"},{\"target\":\"t99\"}]"
    error_message = "One invocation answers for 100 targets at most, so there are several: ${jsonencode(output.invocations)}."
  }
}

run "no_objects" {
  command = plan
  variables {
    targets = { checkout = "checkout.internal:443" }
  }
  expect_failures = [var.targets]
}

run "a_list" {
  command = plan
  variables {
    targets  = [{ name = "checkout", addr = "checkout.internal:443" }]
    defaults = "tls"
    checks   = "each"
  }
  expect_failures = [var.targets, var.defaults, var.checks]
}

run "no_name" {
  command = plan
  variables {
    targets = { "check out" = { addr = "checkout.internal:443" } }
  }
  expect_failures = [output.content]
}

run "no_name_of_a_group" {
  command = plan
  variables {
    targets = { checkout = { addr = "checkout.internal:443", group = "-" } }
  }
  expect_failures = [output.content]
}

run "no_key" {
  command = plan
  variables {
    targets = { checkout = { addr = "checkout.internal:443", adr = "b" } }
  }
  expect_failures = [output.content]
}

run "no_default" {
  command = plan
  variables {
    defaults = { tlss = true }
  }
  expect_failures = [output.content]
}

run "no_address" {
  command = plan
  variables {
    targets = { checkout = { addr = null } }
  }
  expect_failures = [output.content]
}

run "address_unset" {
  command = plan
  variables {
    defaults = { addr = "checkout.internal:443" }
    targets  = { checkout = { addr = "" } }
  }
  expect_failures = [output.content]
}

run "service_with_a_space" {
  command = plan
  variables {
    targets = { checkout = { addr = "checkout.internal:443", service_name = ["a b"] } }
  }
  expect_failures = [output.content]
}

run "no_unit" {
  command = plan
  variables {
    targets = { checkout = { addr = "checkout.internal:443", rpc_timeout = 2 } }
  }
  expect_failures = [output.content]
}

run "more_than_a_minute" {
  command = plan
  variables {
    targets = { checkout = { addr = "checkout.internal:443", rpc_timeout = "1m" } }
  }
  expect_failures = [output.content]
}

run "two_defaults_of_a_timeout" {
  command = plan
  variables {
    defaults = { rpc_timeout = "2s" }
  }
  expect_failures = [output.content]
}

run "large_group" {
  command = plan
  variables {
    targets = { for i in range(101) : "t${i}" => { addr = "t:${i}", group = "g" } }
  }
  expect_failures = [output.content]
}

run "large_file" {
  command = plan
  variables {
    most_bytes = { number = 60, advice = "make two" }
  }
  expect_failures = [output.content]
}

run "too_many_checks" {
  command = plan
  variables {
    targets = { for i in range(101) : "t${i}" => { addr = "t:${i}" } }
  }
  expect_failures = [output.checks]
}

run "too_many_for_one_answer" {
  command = plan
  variables {
    checks  = "all"
    targets = { for i in range(101) : "t${i}" => { addr = "t:${i}" } }
  }
  expect_failures = [output.checks]
}
