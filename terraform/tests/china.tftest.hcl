# What is named otherwise in China.

mock_provider "aws" {
  source = "./tests/mocks"

  override_data {
    target = data.aws_partition.current
    values = { partition = "aws-cn" }
  }
}

variables {
  aws_region           = "cn-north-1"
  channel_arn          = null
  create_vpc_endpoints = true
  kms_key_arn          = "arn:aws-cn:kms:cn-north-1:123456789012:key/k"
}

run "lambda" {
  assert {
    condition = { for name, endpoint in aws_vpc_endpoint.service : name => endpoint.service_name } == {
      lambda         = "cn.com.amazonaws.cn-north-1.lambda"
      logs           = "com.amazonaws.cn-north-1.logs"
      secretsmanager = "com.amazonaws.cn-north-1.secretsmanager"
    }
    error_message = "Lambda's endpoint has a prefix of its own there"
  }

  assert {
    condition     = startswith(aws_lambda_function.relay[0].environment[0].variables["RELAY_LOG_GROUP"], "arn:aws-cn:logs:cn-north-1:")
    error_message = "and ARNs have another partition"
  }

  assert {
    condition     = one([for s in jsondecode(aws_iam_role_policy.relay.policy).Statement : s.Condition.StringEquals["kms:ViaService"] if s.Sid == "UseKeys"]) == ["secretsmanager.cn-north-1.amazonaws.com.cn", "sqs.cn-north-1.amazonaws.com.cn"]
    error_message = "and services another domain"
  }
}

run "fargate" {
  variables {
    host = "fargate"
    fargate = {
      image           = "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn/team/relay:1"
      certificate_arn = "arn:aws-cn:acm:cn-north-1:123456789012:certificate/c"
    }
  }

  assert {
    condition = { for name, endpoint in aws_vpc_endpoint.service : name => endpoint.service_name } == {
      "ecr.api"      = "cn.com.amazonaws.cn-north-1.ecr.api"
      "ecr.dkr"      = "cn.com.amazonaws.cn-north-1.ecr.dkr"
      logs           = "com.amazonaws.cn-north-1.logs"
      secretsmanager = "com.amazonaws.cn-north-1.secretsmanager"
    }
    error_message = "and so have ECR's"
  }
}
