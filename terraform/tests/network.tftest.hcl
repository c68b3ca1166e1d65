# Networks, and the ledger within them.

mock_provider "aws" {
  source = "./tests/mocks"
}

run "two_nodes_encrypted" {
  assert {
    condition     = aws_elasticache_replication_group.ledger[0].engine == "valkey" && aws_elasticache_replication_group.ledger[0].num_cache_clusters == 2 && aws_elasticache_replication_group.ledger[0].multi_az_enabled && aws_elasticache_replication_group.ledger[0].automatic_failover_enabled
    error_message = "two nodes, two zones, failover"
  }

  assert {
    condition     = aws_elasticache_replication_group.ledger[0].transit_encryption_enabled && aws_elasticache_replication_group.ledger[0].transit_encryption_mode == "required" && aws_elasticache_replication_group.ledger[0].at_rest_encryption_enabled == "true"
    error_message = "encrypted on the way and at rest"
  }

  assert {
    condition     = aws_elasticache_replication_group.ledger[0].user_group_ids == toset(["ledger-users"]) && aws_elasticache_replication_group.ledger[0].security_group_ids == toset([aws_security_group.ledger.id])
    error_message = "only the relay's user, only from the relay's group"
  }

  assert {
    condition     = one(aws_elasticache_parameter_group.ledger[0].parameter).value == "volatile-ttl" && aws_elasticache_parameter_group.ledger[0].family == "valkey8"
    error_message = "a full ledger must not evict what does not expire"
  }

  assert {
    condition     = aws_elasticache_replication_group.ledger[0].replication_group_id == "relay-ledger" && aws_elasticache_subnet_group.ledger[0].subnet_ids == toset(["subnet-1", "subnet-2"])
    error_message = "its name and subnets"
  }
}

run "rules" {
  assert {
    condition     = aws_vpc_security_group_egress_rule.aws.cidr_ipv4 == "0.0.0.0/0" && aws_vpc_security_group_egress_rule.aws.from_port == 443 && aws_vpc_security_group_egress_rule.aws.to_port == 443
    error_message = "everywhere, but HTTPS only"
  }

  assert {
    condition     = [for cidr, rule in aws_vpc_security_group_egress_rule.kong : "${rule.cidr_ipv4}:${rule.to_port}"] == ["10.1.0.0/16:8444", "10.9.0.0/16:8444"]
    error_message = "Kong in the VPC, at its port"
  }

  assert {
    condition = alltrue([
      aws_vpc_security_group_egress_rule.ledger.referenced_security_group_id == aws_security_group.ledger.id,
      aws_vpc_security_group_ingress_rule.ledger_from_relay.referenced_security_group_id == aws_security_group.relay.id,
      aws_vpc_security_group_ingress_rule.ledger_from_relay.from_port == 6379,
      aws_vpc_security_group_egress_rule.ledger.to_port == 6379,
    ])
    error_message = "relay and ledger by group, in both directions"
  }

  assert {
    condition     = toset(aws_lambda_function.relay[0].vpc_config[0].subnet_ids) == toset(["subnet-1", "subnet-2"]) && length(aws_vpc_endpoint.service) + length(aws_vpc_endpoint.s3) + length(aws_security_group.endpoints) == 0
    error_message = "the function is in the VPC; endpoints only if asked for"
  }
}

run "kong_by_group" {
  variables {
    kong_security_group_id = "sg-kong"
  }

  assert {
    condition     = length(aws_vpc_security_group_egress_rule.kong) == 0 && aws_vpc_security_group_egress_rule.kong_group[0].referenced_security_group_id == "sg-kong" && aws_vpc_security_group_ingress_rule.kong_from_relay[0].security_group_id == "sg-kong" && aws_vpc_security_group_ingress_rule.kong_from_relay[0].from_port == 8444
    error_message = "both directions, by group"
  }
}

run "ports_of_urls" {
  variables {
    lambda_env = {
      KONG_ADMIN_API   = "https://[fd00::1]/admin"
      KONG_SUPERADMIN  = true
      KONG_ADMIN_TOKEN = "the-token"
      KONG_ROOT_CA     = ""
      REDIS_DB         = "0"
      CHANNEL_ARN      = ""
    }
    kong_cidr_blocks = ["10.7.0.0/16", "10.8.0.0/16"]
  }

  assert {
    condition     = [for cidr, rule in aws_vpc_security_group_egress_rule.kong : "${cidr}:${rule.from_port}"] == ["10.7.0.0/16:443", "10.8.0.0/16:443"]
    error_message = "https without a port is 443"
  }
}

run "whole_internet_refused" {
  command         = plan
  expect_failures = [var.kong_cidr_blocks]

  variables {
    kong_cidr_blocks = ["0.0.0.0/0"]
  }
}

run "one_subnet_refused" {
  command         = plan
  expect_failures = [aws_elasticache_replication_group.ledger]

  variables {
    existing_subnet_ids = ["subnet-1"]
  }
}

run "serverless" {
  variables {
    cache_serverless = true
    cache_generation = 2
  }

  assert {
    condition     = length(aws_elasticache_replication_group.ledger) == 0 && aws_elasticache_serverless_cache.ledger[0].engine == "valkey" && aws_elasticache_serverless_cache.ledger[0].user_group_id == "ledger-users"
    error_message = "a serverless cache with the relay's user"
  }

  assert {
    condition     = aws_lambda_function.relay[0].environment[0].variables["RELAY_REDIS_CLUSTER"] == "true" && aws_lambda_function.relay[0].environment[0].variables["RELAY_REDIS_TLS"] == "true" && aws_lambda_function.relay[0].environment[0].variables["REDIS_HOST"] == "ledger.serverless.cache.amazonaws.com:6379"
    error_message = "the relay is told that it is a cluster"
  }
}

run "endpoints" {
  variables {
    create_vpc_endpoints = true
    destination          = "cloudwatch"
    cache_serverless     = true
    cache_generation     = 2
  }

  assert {
    condition     = toset(keys(aws_vpc_endpoint.service)) == toset(["secretsmanager", "lambda", "logs"]) && alltrue([for name, endpoint in aws_vpc_endpoint.service : endpoint.service_name == "com.amazonaws.us-east-1.${name}" && endpoint.private_dns_enabled])
    error_message = "what a Lambda needs for CloudWatch"
  }

  assert {
    condition     = [for cidr, rule in aws_vpc_security_group_ingress_rule.endpoints_from_vpc : "${rule.cidr_ipv4}:${rule.from_port}"] == ["10.1.0.0/16:443", "10.9.0.0/16:443"]
    error_message = "private DNS leads the whole VPC here, in all of its ranges: its group lets the VPC in"
  }

  assert {
    condition     = alltrue([for endpoint in aws_vpc_endpoint.service : !strcontains(endpoint.policy, "Condition")]) && length(aws_vpc_endpoint.s3) == 0
    error_message = "what the rest of the VPC may do is not narrowed"
  }
}

run "endpoints_of_fargate" {
  variables {
    create_vpc_endpoints         = true
    vpc_endpoint_policy          = "{}"
    vpc_endpoint_route_table_ids = ["rtb-1"]
    cache_serverless             = true
    cache_generation             = 2
    host                         = "fargate"
    fargate = {
      image           = "123456789012.dkr.ecr.us-east-1.amazonaws.com/team/relay:1"
      certificate_arn = "arn:aws:acm:us-east-1:123456789012:certificate/c"
    }
  }

  assert {
    condition     = toset(keys(aws_vpc_endpoint.service)) == toset(["secretsmanager", "logs", "ecr.api", "ecr.dkr"]) && aws_vpc_endpoint.s3[0].vpc_endpoint_type == "Gateway" && aws_vpc_endpoint.s3[0].route_table_ids == toset(["rtb-1"])
    error_message = "it pulls its image, whose layers are in S3"
  }

  assert {
    condition     = aws_vpc_endpoint.service["logs"].policy == "{}"
    error_message = "a policy, if one is given"
  }
}
