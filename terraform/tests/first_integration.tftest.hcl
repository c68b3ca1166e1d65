# Variables as an existing tfvars of the first integration has them: types, optional parts and defaults as there.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  aws_region          = "us-east-1"
  existing_vpc        = "vpc-abcdefghijklmnopqrs"
  existing_subnet_ids = ["subnet-aaaaaaaaaaaaaaaaaaa", "subnet-bbbbbbbbbbbbbbbbbbb", "subnet-ccccccccccccccccccc"]
  security_group      = "kong-ct-sg"
  lambda_env = {
    KONG_ADMIN_API   = "http://ec2-1-2-3-4.compute-1.amazonaws.com:8001"
    KONG_SUPERADMIN  = true
    KONG_ADMIN_TOKEN = "a-token-in-tfvars"
    KONG_ROOT_CA     = ""
    REDIS_DB         = 0
    CHANNEL_ARN      = "arn:aws:cloudtrail:us-east-1:123456789012:channel/07441ab6-c4a1-4c8a-943d-a2f0c50c8a76"
  }
  channel_arn   = "arn:aws:cloudtrail:us-east-1:123456789012:channel/07441ab6-c4a1-4c8a-943d-a2f0c50c8a76"
  image         = "kong/cloudtrail-integration:1.0.0"
  resource_name = "kong-ct-integration"
}

run "applies_and_warns_about_the_image" {
  expect_failures = [check.image]

  assert {
    condition     = aws_lambda_function.relay[0].function_name == "kong-ct-integration" && aws_security_group.relay.name == "kong-ct-sg"
    error_message = "the names that it asks for"
  }

  assert {
    condition     = aws_lambda_function.relay[0].package_type == "Zip" && endswith(aws_lambda_function.relay[0].filename, "/lambda.zip") && aws_lambda_function.relay[0].image_uri == null
    error_message = "an image outside of ECR gives way to the zip"
  }

  assert {
    condition     = aws_cloudwatch_log_group.relay.name == "/aws/lambda/kong-ct-integration" && aws_elasticache_subnet_group.ledger[0].name == "kong-ct-integration-cache-subnet"
    error_message = "what carries over keeps its name, or it would be replaced"
  }

  assert {
    condition     = aws_lambda_function.relay[0].environment[0].variables["KONG_ADMIN_API"] == "http://ec2-1-2-3-4.compute-1.amazonaws.com:8001" && aws_lambda_function.relay[0].environment[0].variables["KONG_SUPERADMIN"] == "true" && aws_lambda_function.relay[0].environment[0].variables["REDIS_DB"] == "0"
    error_message = "lambda_env reaches the function"
  }

  assert {
    condition     = aws_vpc_security_group_egress_rule.kong["10.1.0.0/16"].from_port == 8001
    error_message = "the Admin API's port is opened"
  }

  assert {
    condition     = alltrue([for tags in [aws_lambda_function.relay[0].tags, aws_elasticache_replication_group.ledger[0].tags, aws_iam_role.relay.tags, aws_sqs_queue.failed[0].tags] : tags["project"] == "kong-cloudtrail-integrations"])
    error_message = "resource_tags has its default, on what takes tags"
  }
}

run "null_for_no_ca" {
  command         = plan
  expect_failures = [check.image]

  variables {
    lambda_env = {
      KONG_ADMIN_API   = "https://kong:8444"
      KONG_SUPERADMIN  = false
      KONG_ADMIN_TOKEN = ""
      KONG_ROOT_CA     = null
      REDIS_DB         = "0"
      CHANNEL_ARN      = "arn:aws:cloudtrail:us-east-1:123456789012:channel/07441ab6-c4a1-4c8a-943d-a2f0c50c8a76"
    }
  }

  assert {
    condition     = length(aws_secretsmanager_secret.kong_admin_token) == 0
    error_message = "no token, no secret"
  }
}

run "channels_that_differ" {
  command         = plan
  expect_failures = [check.image, check.channel]

  variables {
    channel_arn = "arn:aws:cloudtrail:us-east-1:123456789012:channel/another"
  }
}

run "its_image_in_ecr_is_warned_of" {
  command         = plan
  expect_failures = [check.image]

  variables {
    image = "123456789012.dkr.ecr.us-east-1.amazonaws.com/my-repo/kong-cloudtrails-integration:latest"
  }
}
