# Names and descriptions, against what AWS takes.

mock_provider "aws" {
  source = "./tests/mocks"
}

# Of every group and rule that stands in any file: what is interpolated into one is made of the same characters.
run "descriptions_of_groups_and_rules" {
  command = plan

  assert {
    condition = aws_security_group.relay.name == "kong-relay" && length([for text in flatten([
      for block in flatten([for file in fileset(path.module, "*.tf") : regexall("(?s)resource \"aws_(?:vpc_)?security_group(?:_[a-z_]+)?\" \"[a-z0-9_]+\" \\{.*?\n\\}", file("${path.module}/${file}"))]) :
      regexall("\\n  description += \"(.*)\"\\n", block)
      ]) : text if can(regex("^[a-zA-Z0-9. _:/()#,@\\[\\]+=&;{}!$*-]{1,255}$", text))]) == length(flatten([
      for file in fileset(path.module, "*.tf") : regexall("resource \"aws_(?:vpc_)?security_group(?:_[a-z_]+)?\"", file("${path.module}/${file}"))
    ]))
    error_message = "each has a description of the characters that EC2 takes"
  }
}

run "names_of_groups_on_fargate" {
  variables {
    create_vpc_endpoints   = true
    kong_security_group_id = "sg-kong"
    host                   = "fargate"
    fargate = {
      image                    = "123456789012.dkr.ecr.us-east-1.amazonaws.com/team/relay:1"
      certificate_arn          = "arn:aws:acm:us-east-1:123456789012:certificate/c"
      plugin_cidr_blocks       = ["10.2.0.0/16"]
      plugin_security_group_id = "sg-plugin"
    }
  }

  assert {
    condition = alltrue([for group in [aws_security_group.relay, aws_security_group.ledger, aws_security_group.balancer[0], aws_security_group.endpoints[0]] :
      can(regex("^[a-zA-Z0-9. _:/()#,@\\[\\]+=&;{}!$*-]{1,255}$", group.name)) && !startswith(lower(group.name), "sg-") &&
      can(regex("^[a-zA-Z0-9. _:/()#,@\\[\\]+=&;{}!$*-]{1,255}$", group.description))
    ])
    error_message = "groups"
  }

  assert {
    condition = alltrue([for rule in concat(
      [aws_vpc_security_group_egress_rule.aws, aws_vpc_security_group_egress_rule.ledger],
      aws_vpc_security_group_egress_rule.kong_group, values(aws_vpc_security_group_egress_rule.balancer_to_relay),
      ) : can(regex("^[a-zA-Z0-9. _:/()#,@\\[\\]+=&;{}!$*-]{1,255}$", rule.description))]) && alltrue([for rule in concat(
      [aws_vpc_security_group_ingress_rule.ledger_from_relay], aws_vpc_security_group_ingress_rule.kong_from_relay,
      values(aws_vpc_security_group_ingress_rule.balancer_from_range), aws_vpc_security_group_ingress_rule.balancer_from_group,
      values(aws_vpc_security_group_ingress_rule.relay_from_balancer), values(aws_vpc_security_group_ingress_rule.endpoints_from_vpc),
    ) : can(regex("^[a-zA-Z0-9. _:/()#,@\\[\\]+=&;{}!$*-]{1,255}$", rule.description))])
    error_message = "rules"
  }
}

run "a_long_name" {
  variables {
    resource_name    = "internal-kong--audit-relay-of-a-long-name-x45"
    cache_generation = 2
    host             = "fargate"
    fargate = {
      image           = "123456789012.dkr.ecr.us-east-1.amazonaws.com/team/relay:1"
      certificate_arn = "arn:aws:acm:us-east-1:123456789012:certificate/c"
    }
  }

  assert {
    condition     = alltrue([for name in [aws_lb.relay[0].name, aws_lb_target_group.relay[0].name] : can(regex("^[a-zA-Z0-9]([a-zA-Z0-9-]{0,30}[a-zA-Z0-9])?$", name)) && !startswith(name, "internal-")])
    error_message = "load balancers: 32 characters, and no internal- at the start"
  }

  assert {
    condition     = can(regex("^[a-z](-?[a-z0-9]){0,39}$", aws_elasticache_replication_group.ledger[0].replication_group_id)) && length(aws_elasticache_replication_group.ledger[0].replication_group_id) <= 40
    error_message = "replication groups: 40 characters, no two hyphens in a row"
  }

  assert {
    condition = alltrue([for id in [
      jsondecode(aws_cloudformation_stack.ledger_user.template_body).Resources.User.Properties.UserId,
      jsondecode(aws_cloudformation_stack.ledger_user.template_body).Resources.Group.Properties.UserGroupId,
    ] : can(regex("^[a-z](-?[a-z0-9])*$", id)) && length(id) <= 40])
    error_message = "users and their groups as well"
  }
}

run "an_id_for_a_name_refused" {
  command         = plan
  expect_failures = [var.security_group]

  variables {
    security_group = "sg-0123456789abcdef0"
  }
}

run "an_apostrophe_refused" {
  command         = plan
  expect_failures = [var.security_group]

  variables {
    security_group = "kong's"
  }
}
